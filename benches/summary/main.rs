//! `make bench`: what a verification costs, held against a no-op on the same server, a no-op on tonic as it comes, and
//! the crypto library itself. Every ratio is between things measured in turns in one run, each on one worker pinned to
//! one core, with a load client of about a microsecond a call on the other. Writes target/bench/summary.json.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a measurement that can't go on fails"
)]

#[path = "../../tests/engines/mod.rs"]
mod engines;
mod fleet;
mod kinds;
mod load;
mod neighbours;
mod proxies;
mod report;
mod servers;
mod stock;
mod tokens;

use load::{Address, Outcome, Plan};
use report::Report;
use servers::{Server, World};
use std::time::Duration;

/// Different tokens, all cached.
const TOKENS: usize = 100_000;
/// Calls in one turn.
const CALLS: usize = 150_000;
const TURNS: usize = 7;
const VERIFY: &str = "/countersign.v1.TokenService/Verify";
const VERIFY_STREAM: &str = "/countersign.v1.TokenService/VerifyStream";
const FULL: Plan =
    Plan { connections: 4, streams: 64, refill: 1, calls: CALLS, rate: None, streaming: false };

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("stock") => stock::serve(),
        Some("--bench" | "warm") => measure(),
        Some("kinds") => {
            let mut report = Report::default();
            kinds::measure(&mut report);
        }
        Some("proxies") => {
            let mut report = Report::default();
            proxies::measure(&mut report);
        }
        Some("neighbours") => {
            let mut report = Report::default();
            neighbours::measure(&mut report);
        }
        Some("fleet") => {
            let mut report = Report::default();
            fleet::measure(&mut report);
            neighbours::measure(&mut report);
            report.write();
        }
        // `cargo test` runs benches without words: nothing to measure then.
        _ => {}
    }
}

fn measure() {
    servers::pin_to_core(1);
    let mut report = Report::default();
    let world = World::new();
    if std::env::args().nth(1).as_deref() != Some("warm") {
        cold(&mut report);
        start_up(&world, &mut report);
    }
    let bodies = tokens::verify_bodies(&world, TOKENS);
    warm(&world, &bodies, &mut report);
    drop((world, bodies));
    kinds::measure(&mut report);
    proxies::measure(&mut report);
    fleet::measure(&mut report);
    neighbours::measure(&mut report);
    report.write();
}

/// Single verifications and the size of a denial, measured by the bench under the product's allocator.
fn cold(report: &mut Report) {
    for line in servers::tuned_says("denial").lines() {
        let bytes: f64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        report.value("bytes_per_denial", bytes, "B", 1_000_000, "goal 50; 1,000,000 denials in memory");
    }
    for line in servers::tuned_says("cold").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words[index].parse::<f64>().unwrap();
        let (name, samples) = (words[1], words[7].parse().unwrap());
        report.value(&format!("verify_cold_{name}"), number(2), "µs", samples, "one thread, no server");
        report.value(
            &format!("verify_cold_{name}_vs_raw"),
            number(5),
            "ratio",
            samples,
            &format!("aws-lc-rs with a parsed key, {:.2} µs", number(3)),
        );
        report.value(
            &format!("verify_cold_{name}_vs_jsonwebtoken"),
            number(6),
            "ratio",
            samples,
            &format!("jsonwebtoken's decode, {:.2} µs", number(4)),
        );
    }
}

/// How soon it is ready, with file keys and 10,000 denials, and what it takes idle.
fn start_up(world: &World, report: &mut Report) {
    world.deny(10_000);
    let mut ready: Vec<f64> = (0..TURNS)
        .map(|_| {
            let server = Server::countersign(world);
            server.ready_after.as_secs_f64() * 1e3
        })
        .collect();
    ready.sort_by(f64::total_cmp);
    report.value(
        "ready_ms",
        ready[TURNS / 2],
        "ms",
        TURNS,
        "goal 100; from spawn to 200 on /readyz, 10,000 denials",
    );
    let idle = World::new();
    let server = Server::countersign(&idle);
    std::thread::sleep(Duration::from_secs(1));
    report.value("rss_idle", server.resident_mib(), "MiB", 1, "goal 24; one worker, nothing cached");
}

/// Warm verifications: 100,000 cached tokens, 1,000,000 denials.
fn warm(world: &World, bodies: &[Vec<u8>], report: &mut Report) {
    world.deny(1_000_000);
    let countersign = Server::countersign(world);
    let tuned = Server::noop_tuned();
    let stock = Server::noop_stock();
    let before = countersign.resident_mib();
    let all = Plan { calls: bodies.len(), ..FULL };
    // What the answer says is checked by a real client once.
    countersign.check(&bodies[0]);
    load::run(&countersign.tcp, VERIFY, bodies, all);
    let growth = (countersign.resident_mib() - before) * 1024.0 * 1024.0 / bodies.len() as f64;
    report.value("bytes_per_cached_token", growth, "B", bodies.len(), "goal 900; growth of the resident set");

    let run = |server: &Server, plan: Plan| load::run(&server.tcp, VERIFY, bodies, plan);
    for server in [&countersign, &tuned, &stock] {
        run(server, FULL);
    }
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        turns.push(
            [run(&countersign, FULL), run(&tuned, FULL), run(&stock, FULL)].map(|outcome| outcome.per_second),
        );
    }
    let column = |index: usize| median(turns.iter().map(|turn| turn[index]).collect());
    let ratio = |over: usize| median(turns.iter().map(|turn| turn[0] / turn[over]).collect());
    let samples = CALLS * TURNS;
    report.value(
        "verify_warm",
        column(0),
        "calls/s",
        samples,
        "one worker, 4 connections, 64 calls under way on each",
    );
    report.value(
        "verify_warm_vs_noop_tuned",
        ratio(1),
        "ratio",
        samples,
        &format!("{:.0} calls/s", column(1)),
    );
    report.value(
        "verify_warm_vs_noop_stock",
        ratio(2),
        "ratio",
        samples,
        &format!("{:.0} calls/s", column(2)),
    );

    offered(&countersign, &tuned, bodies, column(0).min(column(1)) * 0.5, report);
    streams(&countersign, bodies, column(0), report);
    lone(&countersign, bodies, report);
}

/// The 99th percentile at the same offered load, half of what either can do.
fn offered(countersign: &Server, tuned: &Server, bodies: &[Vec<u8>], rate: f64, report: &mut Report) {
    let plan = Plan { rate: Some(rate), calls: 100_000, refill: 1, ..FULL };
    let mut ratios = Vec::new();
    let mut ours = Vec::new();
    for _ in 0..TURNS {
        let p99 = |server: &Server| micros(load::run(&server.tcp, VERIFY, bodies, plan).percentile(0.99));
        let (one, other) = (p99(countersign), p99(tuned));
        ratios.push(one / other);
        ours.push(one);
    }
    let samples = plan.calls * TURNS;
    report.with_p99(
        "verify_warm_p99_vs_noop_tuned",
        median(ratios),
        "ratio",
        median(ours),
        samples,
        &format!("both offered {rate:.0} calls/s"),
    );
}

fn streams(countersign: &Server, bodies: &[Vec<u8>], unary: f64, report: &mut Report) {
    let items = tokens::stream_bodies(bodies);
    let plan = Plan { streaming: true, ..FULL };
    let mut ratios = Vec::new();
    let mut ours = Vec::new();
    for _ in 0..TURNS {
        let stream = load::run(&countersign.tcp, VERIFY_STREAM, &items, plan).per_second;
        let unary = load::run(&countersign.tcp, VERIFY, bodies, FULL).per_second;
        ratios.push(stream / unary);
        ours.push(stream);
    }
    report.value(
        "verify_stream",
        median(ours),
        "items/s",
        CALLS * TURNS,
        "one worker, 4 streams, 64 items under way on each",
    );
    report.value(
        "verify_stream_vs_unary",
        median(ratios),
        "ratio",
        CALLS * TURNS,
        &format!("{unary:.0} calls/s"),
    );
}

/// One call at a time, over the Unix socket and over TCP.
fn lone(countersign: &Server, bodies: &[Vec<u8>], report: &mut Report) {
    let plan = Plan { connections: 1, streams: 1, refill: 1, calls: 10_000, rate: None, streaming: false };
    let run = |address: &Address| -> Outcome { load::run(address, VERIFY, bodies, plan) };
    let unix = countersign.unix.clone().unwrap();
    let (mut ratios, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (over_unix, over_tcp) = (run(&unix), run(&countersign.tcp));
        ratios.push(micros(over_unix.percentile(0.5)) / micros(over_tcp.percentile(0.5)));
        p50.push(micros(over_unix.percentile(0.5)));
        p99.push(micros(over_unix.percentile(0.99)));
    }
    let samples = plan.calls * TURNS;
    report.with_p99("verify_lone_uds_p50", median(p50), "µs", median(p99), samples, "one call at a time");
    report.value("uds_p50_vs_tcp_p50", median(ratios), "ratio", samples, "the same over TCP");
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The value that this share of the others stays below.
pub fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
