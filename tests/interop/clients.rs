//! The example clients in `examples/clients`, each as a process of its own: a service with the interceptor, which calls itself
//! with the tokens given to it. Beside it stands a live sidecar that says yes, says no, can't tell, goes away and comes back.

use crate::mint::Key;
use crate::peer::{Peer, node};
use crate::support::{Home, SECRET, Sidecar};
use countersign::clock::Clock;
use countersign::grpc::v1::Attributes;
use countersign::grpc::v1::revoke_request::Target;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// What an example shows beside yes: the same in each language, but that Express speaks HTTP.
struct Words {
    no: &'static str,
    not_for_this: &'static str,
    unnamed: &'static str,
    can_t_tell: &'static str,
    /// Headers that tell a client what is wrong, and when to try again.
    invalid: &'static str,
    insufficient: &'static str,
    later: &'static str,
}

const GRPC: Words = Words {
    no: "no UNAUTHENTICATED",
    not_for_this: "no PERMISSION_DENIED",
    unnamed: "no UNAUTHENTICATED MALFORMED NONE",
    can_t_tell: "can't tell UNAVAILABLE",
    invalid: "",
    insufficient: "",
    later: "",
};

const HTTP: Words = Words {
    no: "no 401",
    not_for_this: "no 403",
    unnamed: "no 401 - REAUTHENTICATE (WWW-Authenticate: Bearer)",
    can_t_tell: "can't tell 503",
    invalid: " (WWW-Authenticate: Bearer error=\"invalid_token\")",
    insufficient: " (WWW-Authenticate: Bearer error=\"insufficient_scope\", scope=\"orders:read\")",
    later: " (Retry-After: ",
};

/// The place where `make clients` built them.
fn place() -> Option<PathBuf> {
    let place = std::env::var_os("TEST_CLIENTS");
    if place.is_none() {
        eprintln!("NOT RUN: the example clients; `make interop` builds them and runs this");
    }
    place.map(PathBuf::from)
}

/// A running example; killed when dropped.
struct Example {
    _process: Child,
    tokens: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    words: Words,
}

impl Example {
    fn start(program: impl AsRef<Path>, arguments: &[&str], folder: &Path, words: Words) -> Self {
        let mut process = Command::new(program.as_ref())
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{} runs: {error}", program.as_ref().display()));
        let (tokens, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { _process: process, tokens, answers: BufReader::new(answers).lines(), words }
    }

    async fn answer(&mut self, token: &str) -> String {
        self.tokens.write_all(format!("{token}\n").as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(30), self.answers.next_line()).await;
        answer.expect("it answers in time").unwrap().expect("it goes on")
    }

    async fn says_no(&mut self, token: &str, why: &str) {
        let expected = format!("{} {why}{}", self.words.no, self.words.invalid);
        assert_eq!(self.answer(token).await, expected);
    }

    async fn can_t_tell(&mut self, token: &str, why: &str) {
        let expected = format!("{} {why}{}", self.words.can_t_tell, self.words.later);
        let answer = self.answer(token).await;
        assert!(answer.starts_with(&expected), "{answer} instead of {expected}");
    }
}

/// A sidecar with an issuer whose keys are out of reach, an application's session cookies, and a user who is logged in.
struct World {
    home: Home,
    sidecar: Sidecar,
    /// May read orders.
    token: String,
    session: String,
    /// May not.
    scopeless: String,
    undecidable: String,
}

impl World {
    async fn start() -> Self {
        let home = Home::new();
        std::fs::write(home.path("auth.secret"), SECRET).unwrap();
        let sidecar = Self::sidecar(&home).await;
        let scopes = Attributes { scopes: vec!["orders:read".to_owned()], ..Attributes::default() };
        let opened = sidecar.try_login("alice", "medium", scopes).await.unwrap();
        let scopeless = sidecar.login("alice", "medium").await.tokens.unwrap().access_token;
        let now = Clock::system().now().judged.as_secs();
        let claims = json!({
            "iss": "https://sso.example.com", "sub": "alice", "aud": "orders", "iat": now, "exp": now + 300,
            "scope": "orders:read",
        });
        let key = Key::p256("k");
        let undecidable = key.token_of(key.header(), claims.to_string());
        let (token, session) = (opened.tokens.unwrap().access_token, opened.session.unwrap().session_id);
        Self { home, sidecar, token, session, scopeless, undecidable }
    }

    async fn sidecar(home: &Home) -> Sidecar {
        home.start(&format!(
            "issuers:\n  - issuer: https://sso.example.com\n    audiences: [orders]\n    \
             keys: {{jwks_url: \"http://127.0.0.1:9/jwks.json\"}}\n  \
             - issuer: shop-web\n    audiences: [orders]\n    claims: {{scopes: scope}}\n    \
             authjs: {{secret_files: [{}]}}\n",
            home.path("auth.secret").display()
        ))
        .await
    }

    /// How many verifications ended so, as the sidecar counts them.
    async fn verified(&self, label: &str) -> u32 {
        let mut stream = tokio::net::TcpStream::connect(&self.sidecar.ops).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).await.unwrap();
        let of_it = |line: &&str| line.starts_with("countersign_verify_total{") && line.contains(label);
        metrics
            .lines()
            .filter(of_it)
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap())
            .sum()
    }
}

/// Yes, no and can't tell, through the sidecar's whole life.
async fn shows_the_three_answers(start: impl Fn(&str) -> Example) {
    let world = World::start().await;
    let mut over_tcp = start(&world.sidecar.api);
    assert_eq!(over_tcp.answer(&world.token).await, "yes alice");
    over_tcp.says_no("junk", "MALFORMED NONE").await;
    drop(over_tcp);

    let mut example = start(world.sidecar.unix.as_deref().unwrap());
    assert_eq!(example.answer(&world.token).await, "yes alice");

    let unnamed = example.words.unnamed;
    assert_eq!(example.answer("").await, unnamed);
    let scopeless =
        format!("{} INSUFFICIENT_SCOPE NONE{}", example.words.not_for_this, example.words.insufficient);
    assert_eq!(example.answer(&world.scopeless).await, scopeless);
    let denied = world.verified("result=\"denied\"").await;
    example.says_no("junk", "MALFORMED NONE").await;
    assert_eq!(world.verified("result=\"denied\"").await, denied + 1, "a no is asked for once");

    let undecided = world.verified("result=\"undecided\"").await;
    example.can_t_tell(&world.undecidable, "KEYS_UNAVAILABLE NONE").await;
    assert_eq!(world.verified("result=\"undecided\"").await, undecided + 3, "can't tell, three times");

    let World { home, sidecar, token, session, .. } = world;
    tokio::task::spawn_blocking(move || sidecar.stop()).await.unwrap();
    for _ in 0..3 {
        let asked = Instant::now();
        let nobody_there = if example.words.later.is_empty() { "- -" } else { "- NONE" };
        example.can_t_tell(&token, nobody_there).await;
        let took = asked.elapsed();
        assert!(took > Duration::from_millis(900), "a sidecar that is away is waited for, not {took:?}");
        assert!(took < Duration::from_secs(4), "but not {took:?}");
    }

    let restart = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        World::sidecar(&home).await
    };
    let (answer, sidecar) = tokio::join!(example.answer(&token), restart);
    assert_eq!(answer, "yes alice", "it came back within the call");
    let session = countersign::grpc::v1::SessionRevocation { session_id: session, issuer: None };
    sidecar.revoke(Target::Session(session)).await.unwrap();
    example.says_no(&token, "REVOKED REAUTHENTICATE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_shows_the_three_answers() {
    let Some(place) = place() else { return };
    let folder = place.join("go");
    shows_the_three_answers(|sidecar| Example::start(folder.join("bin/orders"), &[sidecar], &folder, GRPC))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_shows_the_three_answers() {
    let Some(place) = place() else { return };
    let (folder, python) = (place.join("python"), std::env::var_os("TEST_PYTHON").unwrap());
    shows_the_three_answers(|sidecar| Example::start(&python, &["main.py", sidecar], &folder, GRPC)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_js_shows_the_three_answers() {
    let Some(place) = place() else { return };
    let folder = place.join("node");
    shows_the_three_answers(|sidecar| Example::start("node", &["main.js", "grpc", sidecar], &folder, GRPC))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn express_shows_the_three_answers() {
    let Some(place) = place() else { return };
    let folder = place.join("node");
    shows_the_three_answers(|sidecar| {
        Example::start("node", &["main.js", "express", sidecar], &folder, HTTP)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tonic_shows_the_three_answers() {
    let Some(place) = place() else { return };
    let client = Path::new(env!("CARGO_BIN_EXE_countersign")).with_file_name("examples").join("client");
    shows_the_three_answers(|sidecar| Example::start(&client, &[sidecar], &place, GRPC)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn express_hands_over_a_session_cookie() {
    let (Some(place), Some(libraries)) = (place(), node()) else { return };
    let world = World::start().await;
    let name = "__Secure-authjs.session-token";
    let ask = json!({
        "ask": "encode", "version": 5, "token": {"sub": "bob", "scope": "orders:read"}, "secret": SECRET,
        "name": name, "maxAge": 600,
    });
    let value = Peer::node(&libraries, "peer.mjs").ask(&ask).unwrap().as_str().unwrap().to_owned();
    let arguments = ["main.js", "express", &world.sidecar.api];
    let mut example = Example::start("node", &arguments, &place.join("node"), HTTP);
    assert_eq!(example.answer(&format!("cookie theme=dark; {name}={value}")).await, "yes bob");
    example.says_no("cookie theme=dark", "MALFORMED NONE").await;
    example.says_no(&format!("cookie {name}={}", &value[4..]), "MALFORMED NONE").await;
}

/// What a reader copies stays short enough to be read first.
#[test]
fn each_interceptor_is_a_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients");
    let files = [
        "go/authenticate.go",
        "go/sidecar.go",
        "python/authenticate.py",
        "python/sidecar.py",
        "node/interceptor.js",
        "node/middleware.js",
        "node/sidecar.js",
        "rust/authenticate.rs",
        "rust/sidecar.rs",
    ];
    for file in files {
        let lines = std::fs::read_to_string(folder.join(file)).unwrap().lines().count();
        assert!((20..=60).contains(&lines), "{file} has {lines} lines");
    }
}
