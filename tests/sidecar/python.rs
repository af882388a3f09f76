//! Another gRPC library lives the whole life of a session: Python's grpcio, from the proto files and from reflection.
//! `make test` names the interpreter it prepared; without one the test says aloud that it did not run.

use crate::support::Home;
use std::process::Command;

#[tokio::test]
async fn a_python_client_lives_the_whole_life_of_a_session() {
    let Some(python) = std::env::var_os("TEST_PYTHON") else {
        eprintln!("NOT RUN: the Python client; `make test` prepares an interpreter and runs it");
        return;
    };
    let home = Home::new();
    // The client is nobody we know by secret: on the Unix socket its uid is its name.
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    let callers = format!(
        "callers:\n  - name: python\n    uid: {uid}\n    \
         may: [sessions.create, sessions.read, sessions.update, revoke.session, revoke.subject, revoke.issuer]\n"
    );
    let sidecar = home.start(&callers).await;
    let root = env!("CARGO_MANIFEST_DIR");
    let jwks = format!("http://{}/.well-known/jwks.json", sidecar.ops);
    let address = sidecar.unix.clone().unwrap();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .arg(format!("{root}/tests/python/session_life.py"))
            .args([&address, &jwks, &format!("{root}/proto")])
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("generated stubs:") && said.contains("reflection:"), "{said}");
}
