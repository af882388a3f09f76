//! A TCP proxy between one sidecar and its store, that can be told to misbehave as networks do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Each piece this much later.
    Delay(Duration),
    /// Nothing arrives in either direction, and nobody is told; what is under way arrives when that ends.
    Hold,
    /// Requests arrive, replies do not before that ends.
    HoldReplies,
    /// Every connection is reset, old and new.
    Reset,
}

/// Listens until dropped.
pub(crate) struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    mode: watch::Sender<Mode>,
    /// How often connections were reset; one that was made before the last time is gone.
    resets: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(target));
        let mode = watch::Sender::new(Mode::Pass);
        let resets = watch::Sender::new(0);
        let (to, modes, reset) = (Arc::clone(&target), mode.subscribe(), resets.subscribe());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut reset = reset.clone();
                reset.mark_unchanged();
                tokio::spawn(connection(client, Arc::clone(&to), modes.clone(), reset));
            }
        });
        Self { port, target, mode, resets, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        if mode == Mode::Reset {
            self.resets.send_modify(|times| *times += 1);
        }
    }

    /// New connections go there, and old ones end.
    pub(crate) fn point_to(&self, target: u16) {
        self.target.store(target, Ordering::SeqCst);
        self.set(Mode::Reset);
        self.set(Mode::Pass);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(
    client: TcpStream,
    target: Arc<AtomicU16>,
    modes: watch::Receiver<Mode>,
    mut resets: watch::Receiver<u64>,
) {
    let mut held = modes.clone();
    if held.wait_for(|mode| *mode != Mode::Hold).await.is_err() || *modes.borrow() == Mode::Reset {
        return reset(&client);
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", target.load(Ordering::SeqCst))).await else {
        return reset(&client);
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let there = pump(&mut from_client, &mut to_server, modes.clone(), false);
    let back = pump(&mut from_server, &mut to_client, modes, true);
    let was_reset = tokio::select! {
        () = there => false,
        () = back => false,
        told = resets.changed() => told.is_ok(),
    };
    if was_reset {
        reset(&from_client.unsplit(to_client));
    }
}

fn reset(client: &TcpStream) {
    let _ = client.set_zero_linger();
}

/// Moves bytes one way until an end hangs up.
async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut modes: watch::Receiver<Mode>,
    replies: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(read) if read > 0 => read,
            _ => return,
        };
        let mode = *modes.borrow();
        if let Mode::Delay(by) = mode {
            tokio::time::sleep(by).await;
        }
        let held = |mode: &Mode| *mode == Mode::Hold || (replies && *mode == Mode::HoldReplies);
        if modes.wait_for(|mode| !held(mode)).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
