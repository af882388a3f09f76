//! Whether calls should be sent here.
//!
//! Readiness waits for gates that the app's parts open, and once reached drops on drain alone: a store that goes away
//! makes calls undecided, but taking every pod out of its service for it would only add an outage. Liveness needs no
//! type: it depends on nothing, and a process that answers is alive.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Where the process stands between start and end. Only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Some gate is still closed.
    Starting,
    /// Every gate was opened.
    Ready,
    /// Going away.
    Draining,
}

/// The process's readiness. Clones share it; it may be used from several runtimes at once.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    gates: Mutex<Gates>,
    phase: watch::Sender<Phase>,
}

#[derive(Debug, Default)]
struct Gates {
    made: u64,
    closed: BTreeMap<u64, Arc<str>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Starts unready, and stays so until a first gate is made and all are open.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Shared { gates: Mutex::default(), phase: watch::Sender::new(Phase::Starting) }))
    }

    /// Makes a closed gate. The name is shown to whoever asks why the process is not ready, so it holds no secret.
    ///
    /// All gates are made before the first is opened: readiness, once reached, is not taken back for a new one. A gate
    /// that is dropped unopened stays closed.
    #[must_use]
    pub fn gate(&self, name: impl Into<Arc<str>>) -> Gate {
        let mut gates = self.0.gates.lock();
        let id = gates.made;
        gates.made += 1;
        gates.closed.insert(id, name.into());
        Gate { id, readiness: self.clone() }
    }

    /// Drops readiness for good.
    pub fn drain(&self) {
        self.0.phase.send_if_modified(|phase| std::mem::replace(phase, Phase::Draining) != Phase::Draining);
    }

    /// Where the process stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Whether calls should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready
    }

    /// The names of the gates that readiness still waits for, in the order they were made.
    #[must_use]
    pub fn closed(&self) -> Vec<Arc<str>> {
        match self.phase() {
            Phase::Starting => self.0.gates.lock().closed.values().cloned().collect(),
            Phase::Ready | Phase::Draining => Vec::new(),
        }
    }

    /// Follows the phase.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Waits until ready, which is `true`, or draining before that, which is `false`.
    pub async fn reached(&self) -> bool {
        let mut phases = self.watch();
        phases.wait_for(|phase| *phase != Phase::Starting).await.is_ok_and(|phase| *phase == Phase::Ready)
    }

    fn open(&self, gate: u64) {
        let mut gates = self.0.gates.lock();
        gates.closed.remove(&gate);
        if gates.closed.is_empty() {
            self.0.phase.send_if_modified(|phase| {
                let reached = *phase == Phase::Starting;
                if reached {
                    *phase = Phase::Ready;
                }
                reached
            });
        }
    }
}

/// One thing readiness waits for.
#[derive(Clone, Debug)]
pub struct Gate {
    id: u64,
    readiness: Readiness,
}

impl Gate {
    /// Opens the gate. Opening it again changes nothing.
    pub fn open(&self) {
        self.readiness.open(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn readiness_waits_for_every_gate() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready(), "with no gate made yet");
        let keys = readiness.gate("keys");
        let denylist = readiness.gate("denylist");
        assert_eq!(readiness.closed(), [Arc::from("keys"), Arc::from("denylist")]);
        keys.open();
        keys.open();
        assert_eq!(readiness.closed(), [Arc::from("denylist")]);
        assert!(!readiness.is_ready());
        denylist.open();
        assert!(readiness.is_ready());
    }

    #[test]
    fn two_gates_of_one_name_are_two_gates() {
        let readiness = Readiness::new();
        let (first, second) = (readiness.gate("keys"), readiness.gate("keys"));
        first.open();
        assert!(!readiness.is_ready());
        second.open();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_gate_dropped_unopened_stays_closed() {
        let readiness = Readiness::new();
        drop(readiness.gate("keys"));
        readiness.gate("denylist").open();
        assert_eq!(readiness.closed(), [Arc::from("keys")]);
    }

    #[test]
    fn readiness_once_reached_drops_on_drain_alone() {
        let readiness = Readiness::new();
        readiness.gate("keys").open();
        let late = readiness.gate("late");
        assert!(readiness.is_ready());
        readiness.drain();
        late.open();
        assert_eq!(readiness.phase(), Phase::Draining);
    }

    #[tokio::test]
    async fn waiting_for_readiness_ends_with_a_drain_too() {
        let readiness = Readiness::new();
        let gate = readiness.gate("keys");
        assert!(readiness.reached().now_or_never().is_none());
        gate.open();
        assert!(readiness.reached().await);
        readiness.drain();
        assert!(!readiness.reached().await);
    }

    #[tokio::test]
    async fn readiness_crosses_runtimes() {
        let readiness = Readiness::new();
        let gate = readiness.gate("keys");
        let waiting = readiness.clone();
        let other = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(waiting.reached())
        });
        gate.open();
        assert!(other.join().expect("the other runtime"));
    }
}
