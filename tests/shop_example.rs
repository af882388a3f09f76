//! The example that users copy from does what it shows: `cargo run --example shop`, run whole.

#![allow(clippy::unwrap_used, reason = "a test that finds otherwise shall fail")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SCENES: [&str; 10] = [
    "1 login",
    "2 order",
    "3 payment",
    "4 a long form",
    "5 role change",
    "6 one device at a time",
    "7 log out my other devices",
    "8 a stolen refresh token",
    "9 an administrator's kick",
    "10 a sidecar is down",
];

/// `cargo test` builds examples beside the binary.
fn shop() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_countersign"));
    let shop = binary.parent().unwrap().join("examples/shop");
    assert!(shop.exists(), "{} is built by `cargo build --example shop`", shop.display());
    shop
}

/// What it printed and how it ended; killed if it has not after a while, and its sidecars end with it.
fn bounded(mut child: Child, at_most: Duration) -> Output {
    let deadline = Instant::now() + at_most;
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let in_time = child.try_wait().unwrap().is_some();
    if !in_time {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(in_time, "not over after {at_most:?}:\n{}", String::from_utf8_lossy(&output.stdout));
    output
}

fn run(arguments: &[&str]) -> Output {
    // What it prints fits into a pipe, so that nobody needs to read while it runs.
    let child = Command::new(shop())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    bounded(child, Duration::from_secs(60))
}

fn every_scene_is_answered_as_it_should_be_on(store: &str) {
    let output = run(&["--store", store]);
    let (table, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{table}\n{faults}");
    assert_eq!(faults, "");
    for scene in SCENES {
        assert!(table.lines().any(|line| line.starts_with(&format!("{scene}  "))), "{scene} in\n{table}");
    }
    assert!(table.ends_with(" 0 unexpected\n"), "{table}");
    assert!(!table.contains('\u{1b}'), "colours are for terminals:\n{table}");
}

#[test]
fn every_scene_of_the_shop_is_answered_as_it_should_be_on_sqlite() {
    every_scene_is_answered_as_it_should_be_on("sqlite");
}

#[test]
fn every_scene_of_the_shop_is_answered_as_it_should_be_on_redis() {
    every_scene_is_answered_as_it_should_be_on("redis");
}

#[test]
fn every_scene_of_the_shop_is_answered_as_it_should_be_on_postgres() {
    every_scene_is_answered_as_it_should_be_on("postgres");
}

#[test]
fn a_store_the_shop_can_t_run_on_is_refused() {
    let output = run(&["--store", "mysql"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("sqlite"), "{output:?}");
}
