//! A process of another language that answers one JSON line for each it reads.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The place where `make interop` installed the packages.
pub(crate) fn node() -> Option<PathBuf> {
    let place = std::env::var_os("TEST_NODE");
    if place.is_none() {
        eprintln!("NOT RUN: the libraries from npm; `make interop` installs them and runs this");
    }
    place.map(PathBuf::from)
}

/// The process; ends when dropped, by the end of its input.
pub(crate) struct Peer {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (ask, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, ask, answers }
    }

    /// One of the scripts beside the packages.
    pub(crate) fn node(place: &PathBuf, script: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(script).current_dir(place);
        Self::start(command)
    }

    /// What it answers, or why it refuses.
    pub(crate) fn ask(&mut self, request: &Value) -> Result<Value, String> {
        let ask = self.ask.as_mut().unwrap();
        writeln!(ask, "{request}").unwrap();
        ask.flush().unwrap();
        let mut line = String::new();
        assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "it answers {request}");
        let mut answer: Value = serde_json::from_str(&line).unwrap();
        match answer.get("error") {
            Some(error) => Err(error.as_str().unwrap().to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.ask.take());
        let _ = self.child.wait();
    }
}
