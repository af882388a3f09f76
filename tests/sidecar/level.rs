//! The log level follows its file.

use crate::durability::Process;
use crate::support::{Home, eventually, verify_request};
use countersign::grpc::v1::token_service_client::TokenServiceClient;

#[tokio::test]
async fn the_log_level_follows_the_configuration_file_and_a_bad_one_changes_nothing() {
    let home = Home::new();
    let process = Process::start(&home, "").await;
    let file = home.path("process.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    // By another file in its place, as a mounted directory changes.
    let write = |text: String| {
        std::fs::write(home.path("next.yaml"), text).unwrap();
        std::fs::rename(home.path("next.yaml"), &file).unwrap();
    };
    let logs = |text: &'static str| {
        let process = &process;
        eventually(text, move || async move { process.logged().contains(text) })
    };
    write(config.replace("level: trace", "level: loud"));
    logs("can't be used; the old log level stays").await;
    assert!(process.logged().contains("log.level: expected one of"), "{}", process.logged());

    write(config.replace("level: trace", "level: error"));
    logs("\"to\":\"error\"").await;
    let before = process.logged();
    let mut tokens = TokenServiceClient::new(process.channel().await);
    tokens.verify(verify_request("junk")).await.unwrap_err();
    assert_eq!(process.logged(), before, "nothing below error is written");

    write(config.replace("level: trace", "level: debug"));
    logs("\"to\":\"debug\"").await;
    assert!(process.logged().len() > before.len());
    let (code, log) = tokio::task::spawn_blocking(move || process.terminate()).await.unwrap();
    assert_eq!(code, Some(0));
    assert!(log.contains("draining"), "what is below error is written again: {log}");
}
