//! The byte stream under a connection. The HTTP/2 preface is read and judged before any protocol state is made. What is
//! written is gathered until the connection has nothing more to do at the moment, and then goes out in one write: the protocol's
//! own library writes every answer of a kilobyte or more by itself.

use hyper_util::rt::TokioIo;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What every HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// So much is gathered, and no more while the peer takes nothing.
const GATHERED: usize = 32 * 1024;
/// The first room for it.
const LEAST: usize = 4 * 1024;
/// After so many sends in a row that needed little of a large room, it is given back; an idle connection is pinged.
const SMALL_SENDS: u8 = 16;

/// A stream whose preface was seen and is handed on.
#[derive(Debug)]
pub(super) struct Wire<S> {
    line: Arc<Mutex<Line<S>>>,
    preface_left: usize,
}

/// Sends what the [`Wire`] gathered.
#[derive(Debug)]
pub(super) struct Outlet<S> {
    line: Arc<Mutex<Line<S>>>,
}

struct Line<S> {
    stream: S,
    gathered: Vec<u8>,
    sent: usize,
    small_sends: u8,
    /// The stream may hold some of it back, as TLS does.
    is_flushed: bool,
}

/// What is gathered holds tokens.
impl<S> fmt::Debug for Line<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("gathered", &self.gathered.len()).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Reads the preface; the caller bounds the time.
    ///
    /// # Errors
    /// When the peer speaks something else or goes away.
    pub(super) async fn accept(mut stream: S) -> io::Result<(TokioIo<Self>, Outlet<S>)> {
        let mut seen = [0; PREFACE.len()];
        stream.read_exact(&mut seen).await?;
        if seen != *PREFACE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer does not speak HTTP/2"));
        }
        let line = Arc::new(Mutex::new(Line {
            stream,
            gathered: Vec::new(),
            sent: 0,
            small_sends: 0,
            is_flushed: true,
        }));
        let outlet = Outlet { line: Arc::clone(&line) };
        Ok((TokioIo::new(Self { line, preface_left: PREFACE.len() }), outlet))
    }
}

impl<S: AsyncWrite + Unpin> Outlet<S> {
    /// Sends all that there is. Where the peer does not take it, the task is woken when it does.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.line).poll_send(context)
    }
}

impl<S: AsyncWrite + Unpin> Line<S> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = self.gathered.get(self.sent..).filter(|left| !left.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
            self.is_flushed = false;
        }
        if !self.gathered.is_empty() {
            let is_small = self.gathered.len() < self.gathered.capacity() / 8;
            self.small_sends = if is_small { self.small_sends + 1 } else { 0 };
            self.gathered.clear();
            self.sent = 0;
            if self.small_sends >= SMALL_SENDS {
                self.small_sends = 0;
                self.gathered = Vec::new();
            }
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Room for some bytes.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= GATHERED {
            ready!(self.poll_send(context))?;
        }
        Poll::Ready(Ok(GATHERED.saturating_sub(self.gathered.len())))
    }

    fn gather(&mut self, bytes: &[u8], room: usize) -> usize {
        let now = bytes.get(..room).unwrap_or(bytes);
        let wanted = self.gathered.len() + now.len();
        if wanted > self.gathered.capacity() {
            let whole = wanted.next_power_of_two().max(LEAST);
            self.gathered.reserve_exact(whole - self.gathered.len());
        }
        self.gathered.extend_from_slice(now);
        now.len()
    }
}

/// Only the connection's own task takes it, so it is free.
fn lock<S>(line: &Mutex<Line<S>>) -> MutexGuard<'_, Line<S>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preface_left > 0 {
            let now = self.preface_left.min(buffer.remaining());
            let from = PREFACE.len() - self.preface_left;
            buffer.put_slice(PREFACE.get(from..from + now).unwrap_or_default());
            self.preface_left -= now;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut lock(&self.line).stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut line = lock(&self.line);
        let room = ready!(line.poll_room(context))?;
        Poll::Ready(Ok(line.gather(bytes, room)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut line = lock(&self.line);
        let room = ready!(line.poll_room(context))?;
        let gathered =
            slices.iter().fold(0, |gathered, slice| gathered + line.gather(slice, room - gathered));
        Poll::Ready(Ok(gathered))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: the [`Outlet`] sends it, once for everything that the connection does in one go.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = lock(&self.line);
        ready!(line.poll_send(context))?;
        Pin::new(&mut line.stream).poll_shutdown(context)
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Waker;
    use std::time::Duration;
    use tokio::io::{AsyncWriteExt, DuplexStream};

    #[tokio::test]
    async fn the_preface_is_handed_on_whole_before_what_follows() {
        let sent = [PREFACE.as_slice(), b"frames"].concat();
        let (wire, _outlet) = Wire::accept(peer_that_sent(&sent)).await.unwrap();
        let mut wire = wire.into_inner();
        let mut got = Vec::new();
        let mut small = [0; 7];
        loop {
            match wire.read(&mut small).await.unwrap() {
                0 => break,
                n => got.extend_from_slice(&small[..n]),
            }
        }
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn http_1_and_junk_are_turned_away() {
        for junk in [&b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"[..], &[0; 64], b"PRI"] {
            assert!(Wire::accept(peer_that_sent(junk)).await.is_err());
        }
    }

    fn peer_that_sent(sent: &[u8]) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        tokio::io::join(io::Cursor::new(sent.to_vec()), tokio::io::sink())
    }

    /// A wire to a peer that takes no more than this before it reads.
    async fn before(window: usize) -> (Wire<DuplexStream>, Outlet<DuplexStream>, DuplexStream) {
        let (ours, mut theirs) = tokio::io::duplex(window);
        theirs.write_all(PREFACE).await.unwrap();
        let (wire, outlet) = Wire::accept(ours).await.unwrap();
        (wire.into_inner(), outlet, theirs)
    }

    #[tokio::test]
    async fn what_is_written_goes_out_at_once_when_the_outlet_sends_and_in_order() {
        let (mut wire, outlet, mut peer) = before(4096).await;
        let mut got = [0; 64];
        wire.write_all(b"one").await.unwrap();
        wire.flush().await.unwrap();
        let parts = [IoSlice::new(b", two"), IoSlice::new(b""), IoSlice::new(b", three")];
        assert_eq!(wire.write_vectored(&parts).await.unwrap(), 12);
        let early = tokio::time::timeout(Duration::from_millis(20), peer.read(&mut got)).await;
        assert!(early.is_err(), "nothing goes out by itself");
        poll_fn(|context| outlet.poll_send(context)).await.unwrap();
        let count = peer.read(&mut got).await.unwrap();
        assert_eq!(&got[..count], b"one, two, three");
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_makes_the_writer_wait_and_gets_all_of_it_later() {
        let (mut wire, outlet, mut peer) = before(1000).await;
        let sent: Vec<u8> = (0..=250).cycle().take(GATHERED * 3).collect();
        let mut taken = 0;
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(count) = Pin::new(&mut wire).poll_write(&mut context, &sent[taken..]) {
            taken += count.unwrap();
            assert!(taken <= GATHERED + 1000, "it is bounded");
        }
        assert!(taken >= GATHERED);
        let writing = async {
            wire.write_all(&sent[taken..]).await.unwrap();
            poll_fn(|context| outlet.poll_send(context)).await.unwrap();
            wire.shutdown().await.unwrap();
        };
        let reading = async {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).await.unwrap();
            got
        };
        assert_eq!(tokio::join!(writing, reading).1, sent);
    }

    #[tokio::test]
    async fn room_is_bounded_and_given_back_after_a_burst() {
        let (mut wire, outlet, mut peer) = before(2 * GATHERED).await;
        let room = || lock(&outlet.line).gathered.capacity();
        let mut got = vec![0; GATHERED];
        let small = std::iter::repeat_n((100, GATHERED), usize::from(SMALL_SENDS) - 1);
        let bursts = [(GATHERED, GATHERED)].into_iter().chain(small).chain([(100, 0), (100, LEAST)]);
        for (written, most) in bursts {
            wire.write_all(&vec![7; written]).await.unwrap();
            poll_fn(|context| outlet.poll_send(context)).await.unwrap();
            peer.read_exact(&mut got[..written]).await.unwrap();
            assert!(room() <= most, "{} after {written}", room());
        }
    }

    #[tokio::test]
    async fn what_is_gathered_is_not_shown() {
        let (mut wire, outlet, _peer) = before(4096).await;
        wire.write_all(b"canary").await.unwrap();
        assert!(!format!("{wire:?} {outlet:?}").contains("canary"));
        assert!(!format!("{:?}", wire.line).contains("99"), "nor as bytes");
    }

    #[tokio::test]
    async fn a_shutdown_sends_what_is_left_first() {
        let (mut wire, _outlet, mut peer) = before(4096).await;
        wire.write_all(b"goodbye").await.unwrap();
        wire.shutdown().await.unwrap();
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"goodbye");
    }

    /// Takes everything and holds it back until it could be flushed, which fails at first.
    #[derive(Debug)]
    struct HoldsBack {
        flushes: usize,
    }

    impl AsyncWrite for HoldsBack {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes == 1 { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_the_stream_held_back_is_flushed_the_next_time() {
        let stream = tokio::io::join(io::Cursor::new(PREFACE.to_vec()), HoldsBack { flushes: 0 });
        let (wire, outlet) = Wire::accept(stream).await.unwrap();
        wire.into_inner().write_all(b"frames").await.unwrap();
        let mut context = Context::from_waker(Waker::noop());
        assert!(outlet.poll_send(&mut context).is_pending());
        assert!(outlet.poll_send(&mut context).is_ready());
        assert!(outlet.poll_send(&mut context).is_ready());
        assert_eq!(lock(&outlet.line).stream.writer().flushes, 2, "and not without need");
    }

    #[tokio::test]
    async fn a_peer_that_went_away_is_an_error() {
        let (mut wire, outlet, peer) = before(4096).await;
        drop(peer);
        wire.write_all(b"hello?").await.unwrap();
        assert!(poll_fn(|context| outlet.poll_send(context)).await.is_err());
    }
}
