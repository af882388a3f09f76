//! Threads that own a connection each and do what is asked of them, in batches: a lane of one writes, a lane of a few
//! reads. What queued up while a commit was flushed to disk shares the next commit.

use super::Settings;
use super::file::{Link, OpenError};
use super::rows::same_failure;
use crate::revocation::StoreError;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// At most this many share a commit.
const BATCH: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Each batch is one immediate transaction, each call a savepoint in it.
    Write,
    /// Each call is a transaction of its own, which reads one snapshot.
    Read,
}

/// The asking end. Dropping it ends the threads, and waits for them.
pub(super) struct Lane {
    queue: Option<SyncSender<Box<dyn Task>>>,
    threads: Vec<JoinHandle<()>>,
    answer_within: Duration,
}

impl Lane {
    pub(super) fn start(mode: Mode, links: Vec<Link>, settings: Settings) -> Result<Self, OpenError> {
        let (queue, tasks) = sync_channel(settings.queue.max(1));
        let tasks = Arc::new(Mutex::new(tasks));
        let mut lane =
            Self { queue: Some(queue), threads: Vec::new(), answer_within: settings.answer_within };
        for link in links {
            let tasks = Arc::clone(&tasks);
            let name = if mode == Mode::Write { "store-write" } else { "store-read" };
            lane.threads.push(spawn(name, move || serve(mode, link, &tasks))?);
        }
        Ok(lane)
    }

    /// Has `work` done on the connection, inside a transaction. When the caller goes away first, work not begun is not
    /// done.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let task = Work { work: Some(work), done: None, reply };
        let queue = self.queue.as_ref().ok_or_else(|| unavailable("the store is closed"))?;
        queue.try_send(Box::new(task)).map_err(|_| unavailable("too many calls wait for the store"))?;
        match tokio::time::timeout(self.answer_within, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unavailable("the store's thread has ended")),
            Err(_) => Err(unavailable("the store did not answer in time")),
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

/// Something asked, whatever its answer's type.
trait Task: Send {
    /// Does it and keeps the answer; an error undoes it.
    fn run(&mut self, connection: &Connection) -> Result<(), Undo>;
    /// Nobody waits for it any more.
    fn abandoned(&self) -> bool;
    /// Answers, once it is known whether the transaction stands.
    fn settle(self: Box<Self>, failed: Option<&StoreError>);
}

struct Undo;

struct Work<F, T> {
    work: Option<F>,
    done: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Task for Work<F, T>
where
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), Undo> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let done = work(connection);
        let undo = done.is_err();
        self.done = Some(done);
        if undo { Err(Undo) } else { Ok(()) }
    }

    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn settle(self: Box<Self>, failed: Option<&StoreError>) {
        let answer = match (self.done, failed) {
            (Some(Err(error)), _) => Err(error),
            (_, Some(error)) => Err(same_failure(error)),
            (Some(done), None) => done,
            (None, None) => Err(unavailable("the call was not made")),
        };
        // Whoever asked may be gone.
        let _ = self.reply.send(answer);
    }
}

fn serve(mode: Mode, mut link: Link, tasks: &Mutex<Receiver<Box<dyn Task>>>) {
    let most = if mode == Mode::Write { BATCH } else { 1 };
    while let Some(mut batch) = next_batch(tasks, most) {
        batch.retain(|task| !task.abandoned());
        if batch.is_empty() {
            continue;
        }
        let result = link.fresh().and_then(|connection| transact(mode, connection, &mut batch));
        let failed = result.err();
        if let Some(error) = &failed {
            tracing::warn!(error = error as &dyn std::error::Error, "the store's transaction failed");
        }
        for task in batch {
            task.settle(failed.as_ref());
        }
    }
}

/// Waits for one and takes what else is there; `None` when nobody can ask any more.
fn next_batch(tasks: &Mutex<Receiver<Box<dyn Task>>>, most: usize) -> Option<Vec<Box<dyn Task>>> {
    let tasks = tasks.lock();
    let first = tasks.recv().ok()?;
    Some(std::iter::once(first).chain(tasks.try_iter().take(most - 1)).collect())
}

fn transact(mode: Mode, connection: &Connection, batch: &mut [Box<dyn Task>]) -> Result<(), StoreError> {
    let result = match mode {
        Mode::Write => write(connection, batch),
        Mode::Read => read(connection, batch),
    };
    if !connection.is_autocommit() {
        // The first failure is the one to tell; an open transaction must not outlive it.
        let _ = connection.execute_batch("ROLLBACK");
    }
    result
}

fn write(connection: &Connection, batch: &mut [Box<dyn Task>]) -> Result<(), StoreError> {
    let run = |sql: &str| connection.prepare_cached(sql)?.execute([]);
    run("BEGIN IMMEDIATE")?;
    for task in batch {
        run("SAVEPOINT one")?;
        if task.run(connection).is_err() {
            run("ROLLBACK TO one")?;
        }
        run("RELEASE one")?;
    }
    run("COMMIT")?;
    Ok(())
}

fn read(connection: &Connection, batch: &mut [Box<dyn Task>]) -> Result<(), StoreError> {
    let run = |sql: &str| connection.prepare_cached(sql)?.execute([]);
    for task in batch {
        run("BEGIN")?;
        // Its own error goes to its own caller; there is nothing to undo.
        let _ = task.run(connection);
        run("COMMIT")?;
    }
    Ok(())
}

fn unavailable(why: &'static str) -> StoreError {
    StoreError::Unavailable(why.into())
}

/// Starts a thread under a name that tells what it does.
pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Thread)
}
