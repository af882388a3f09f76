//! One connection kept: made when it is needed, dropped when it fails, and made again with growing pauses, during
//! which calls fail at once.

use super::dial::{Dialler, Link};
use super::fault::{failure, meaning};
use super::script::{SCHEMA, Source};
use crate::revocation::StoreError;
use crate::token::random_bytes;
use redis::{Cmd, Pipeline, RedisError, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Line {
    dialler: Arc<Dialler>,
    link: parking_lot::Mutex<Option<Link>>,
    /// Held by whoever connects; the others wait for what comes of it.
    pause: Mutex<Pause>,
}

#[derive(Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
}

/// What a script is called with.
pub(super) struct Call<'a> {
    pub(super) script: &'static Source,
    /// The namespace's prefix.
    pub(super) key: &'a str,
    /// Made for the server that answers.
    pub(super) arguments: Vec<Vec<u8>>,
}

impl Line {
    pub(super) fn new(dialler: Arc<Dialler>) -> Self {
        Self { dialler, link: parking_lot::Mutex::new(None), pause: Mutex::default() }
    }

    /// Has `work` done over the connection, within the time that a call may take.
    pub(super) async fn ask<T>(
        &self,
        work: impl AsyncFnOnce(Link) -> Result<T, RedisError>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.dialler.access.answer_within;
        let link = timeout_at(deadline, self.link()).await.map_err(|_| too_slow())??;
        let number = link.number;
        match timeout_at(deadline, work(link)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if meaning(&error).ends_connection() {
                    self.drop_link(number);
                }
                Err(failure(error, &self.dialler.address, &self.dialler.access.namespace, SCHEMA))
            }
            Err(_) => {
                self.drop_link(number);
                Err(too_slow())
            }
        }
    }

    /// Whoever comes next connects anew.
    pub(super) fn drop_link(&self, number: u64) {
        let mut link = self.link.lock();
        if link.as_ref().is_some_and(|link| link.number == number) {
            *link = None;
        }
    }

    async fn link(&self) -> Result<Link, StoreError> {
        let kept = || self.link.lock().clone();
        if let Some(link) = kept() {
            return Ok(link);
        }
        let mut pause = self.pause.lock().await;
        if let Some(link) = kept() {
            return Ok(link);
        }
        if pause.until.is_some_and(|until| Instant::now() < until) {
            return Err(StoreError::Unavailable("the server could not be used a moment ago".into()));
        }
        // Counted as failed until it has not: the caller may go away while this waits.
        pause.failures = pause.failures.saturating_add(1);
        pause.until = Some(Instant::now() + jittered(pause.failures));
        let dialled = self.dialler.dial().await;
        match dialled {
            Ok(link) => {
                *pause = Pause::default();
                *self.link.lock() = Some(link.clone());
                Ok(link)
            }
            Err(fault) => {
                pause.until = Some(Instant::now() + jittered(pause.failures));
                Err(StoreError::Unavailable(fault.into()))
            }
        }
    }
}

/// Doubled with each failure, less up to half of it, so that a fleet does not connect in step.
fn jittered(failures: u32) -> Duration {
    let longest = SHORTEST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
    let [drawn] = random_bytes::<1>().unwrap_or([0]);
    longest.mul_f64(1.0 - f64::from(drawn) / 512.0)
}

fn too_slow() -> StoreError {
    StoreError::Unavailable("the server did not answer in time".into())
}

/// Runs a script, by its digest where the server knows it.
pub(super) async fn run(link: &mut Link, call: &Call<'_>) -> Result<Value, RedisError> {
    let answer = link.connection.send_packed_command(&command(call, "EVALSHA", &call.script.digest)).await;
    match answer.and_then(Value::extract_error) {
        Err(error) if meaning(&error) == super::fault::Meaning::NoScript => {
            let command = command(call, "EVAL", call.script.code);
            link.connection.send_packed_command(&command).await.and_then(Value::extract_error)
        }
        answer => answer,
    }
}

/// Runs a script and then a command that waits for what it wrote, nothing in between.
pub(super) async fn run_and_wait(
    link: &mut Link,
    call: &Call<'_>,
    wait: &Cmd,
) -> Result<(Value, Value), RedisError> {
    let mut first = Err(RedisError::from((redis::ErrorKind::Client, "not asked")));
    for (name, script) in [("EVALSHA", call.script.digest.as_str()), ("EVAL", call.script.code)] {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(command(call, name, script)).add_command(wait.clone());
        let answers = link.connection.send_packed_commands(&pipeline, 0, 2).await?;
        let mut answers = answers.into_iter().map(Value::extract_error);
        let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
        first = match next() {
            Ok(answer) => return Ok((answer, next()?)),
            Err(error) => Err(error),
        };
        if !first.as_ref().is_err_and(|error| meaning(error) == super::fault::Meaning::NoScript) {
            break;
        }
    }
    first
}

fn command(call: &Call<'_>, name: &str, script: &str) -> Cmd {
    let mut command = Cmd::new();
    command.arg(name).arg(script).arg(1).arg(call.key);
    for argument in &call.arguments {
        command.arg(argument.as_slice());
    }
    command
}
