//! The byte stream under a connection: the HTTP/2 preface is read and judged before any protocol state is made, and
//! vectored writes are not offered, so that small answers are gathered into one write instead of one each.

use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What every HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose preface was seen and is handed on.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    preface_left: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Reads the preface; the caller bounds the time.
    ///
    /// # Errors
    /// When the peer speaks something else or goes away.
    pub(super) async fn accept(mut stream: S) -> io::Result<TokioIo<Self>> {
        let mut seen = [0; PREFACE.len()];
        stream.read_exact(&mut seen).await?;
        if seen != *PREFACE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer does not speak HTTP/2"));
        }
        Ok(TokioIo::new(Self { stream, preface_left: PREFACE.len() }))
    }
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
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_preface_is_handed_on_whole_before_what_follows() {
        let sent = [PREFACE.as_slice(), b"frames"].concat();
        let mut wire = Wire::accept(tokio_test_stream(&sent)).await.unwrap().into_inner();
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
            assert!(Wire::accept(tokio_test_stream(junk)).await.is_err());
        }
    }

    fn tokio_test_stream(sent: &[u8]) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        tokio::io::join(io::Cursor::new(sent.to_vec()), tokio::io::sink())
    }
}
