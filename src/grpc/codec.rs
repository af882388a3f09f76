//! How messages become bytes. Two codecs: a strict one for every call, under which a message that can't be decoded is
//! the caller's fault and not ours; and the one Verify uses, which copies an answer that was encoded once, when its
//! token was first accepted, and appends the few fields that vary.

use crate::grpc::status;
use crate::grpc::v1::{VerifyRequest, VerifyStreamRequest};
use crate::token::Revision;
use crate::verify::Acceptance;
use bytes::{Buf, BufMut};
use prost::Message;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Small buffers: the usual answer stays below a kilobyte, and a larger one grows its own.
pub(super) const BUFFER: usize = 1024;
/// How much of a stream is gathered before it is handed to the connection.
pub(super) const YIELD: usize = 32 * 1024;

fn buffer_settings() -> BufferSettings {
    BufferSettings::new(BUFFER, YIELD)
}

/// Protobuf, with a message that doesn't decode answered INVALID_ARGUMENT instead of INTERNAL.
#[derive(Debug)]
pub struct StrictCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for StrictCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = tonic_prost::ProstEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        tonic_prost::ProstEncoder::new(buffer_settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(PhantomData)
    }
}

/// Decodes a message or answers INVALID_ARGUMENT.
#[derive(Debug)]
pub struct StrictDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // What the decoder would say quotes nothing of the message, but what it says is of no use to a caller either.
        U::decode(buf).map(Some).map_err(|_| status::bad_call("", "the message does not decode as its type"))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

/// A Verify answer: the encoding kept with the accepted token, and what varies from call to call.
#[derive(Clone, Debug)]
pub struct VerifyAnswer {
    /// Holds fields 1 to 14 of a VerifyResponse.
    pub acceptance: Arc<Acceptance>,
    /// The others.
    pub standing: AnswerStanding,
}

/// What an answer stands on.
#[derive(Clone, Copy, Debug)]
pub struct AnswerStanding {
    /// Field 15.
    pub revision: Revision,
    /// Field 16.
    pub staleness: Duration,
    /// Field 17.
    pub stale: bool,
}

/// The varying fields, encoded: at most 3 + 37 for the revision, 3 + 17 for the staleness, 3 for the flag.
struct Varying {
    bytes: [u8; 64],
    len: usize,
}

impl Varying {
    fn of(answer: &AnswerStanding) -> Self {
        let mut varying = Self { bytes: [0; 64], len: 0 };
        let mut text = RevisionText { bytes: [0; 37] };
        let revision = text.write(answer.revision);
        varying.put(&[15 << 3 | 2, u8::try_from(revision.len()).unwrap_or(0)]);
        varying.put(revision);

        let mut duration = Self { bytes: [0; 64], len: 0 };
        duration.put(&[1 << 3]);
        duration.put_varint(answer.staleness.as_secs());
        duration.put(&[2 << 3]);
        duration.put_varint(u64::from(answer.staleness.subsec_nanos()));
        varying.put(&[0x82, 0x01, u8::try_from(duration.len).unwrap_or(0)]);
        varying.put(duration.as_slice());

        if answer.stale {
            varying.put(&[0x88, 0x01, 1]);
        }
        varying
    }

    fn put(&mut self, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(bytes) {
            *to = *from;
        }
        self.len = self.len.saturating_add(bytes.len()).min(self.bytes.len());
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(&[(value & 0x7f) as u8 | 0x80]);
            value >>= 7;
        }
        self.put(&[(value & 0x7f) as u8]);
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// `epoch.seq` without the formatting machinery: it is written into every answer.
struct RevisionText {
    bytes: [u8; 37],
}

impl RevisionText {
    fn write(&mut self, revision: Revision) -> &[u8] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0_u8; 20];
        let mut count = 0;
        let mut rest = revision.seq;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        let epoch = revision.epoch.to_be_bytes();
        let hex = epoch.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let hex = hex.map(|nibble| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
        let seq = digits.iter().skip(20 - count).copied();
        for (to, from) in self.bytes.iter_mut().zip(hex.chain([b'.']).chain(seq)) {
            *to = from;
        }
        self.bytes.get(..17 + count).unwrap_or_default()
    }
}

/// Verify's codec.
#[derive(Debug, Default)]
pub struct VerifyCodec;

impl Codec for VerifyCodec {
    type Encode = VerifyAnswer;
    type Decode = VerifyRequest;
    type Encoder = AnswerEncoder;
    type Decoder = StrictDecoder<VerifyRequest>;

    fn encoder(&mut self) -> AnswerEncoder {
        AnswerEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(PhantomData)
    }
}

/// Writes a [`VerifyAnswer`] as a VerifyResponse. Protobuf messages concatenate.
#[derive(Debug)]
pub struct AnswerEncoder;

impl Encoder for AnswerEncoder {
    type Item = VerifyAnswer;
    type Error = Status;

    fn encode(&mut self, answer: VerifyAnswer, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let (fixed, varying) = (answer.acceptance.answer(), Varying::of(&answer.standing));
        buf.reserve(fixed.len() + varying.len);
        buf.put_slice(fixed);
        buf.put_slice(varying.as_slice());
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

/// One answer of a VerifyStream.
#[derive(Debug)]
pub struct StreamAnswer {
    /// The item's id.
    pub id: u64,
    /// What became of it.
    pub result: Result<VerifyAnswer, tonic_types::Status>,
}

/// VerifyStream's codec.
#[derive(Debug, Default)]
pub struct VerifyStreamCodec;

impl Codec for VerifyStreamCodec {
    type Encode = StreamAnswer;
    type Decode = StreamItem;
    type Encoder = StreamAnswerEncoder;
    type Decoder = StreamItemDecoder;

    fn encoder(&mut self) -> StreamAnswerEncoder {
        StreamAnswerEncoder
    }

    fn decoder(&mut self) -> StreamItemDecoder {
        StreamItemDecoder
    }
}

/// One item of a stream, or `Err` for a message that does not decode: it is answered, and the stream goes on.
pub type StreamItem = Result<VerifyStreamRequest, Undecodable>;

/// The message does not decode as its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable;

/// Decodes a [`StreamItem`].
#[derive(Debug)]
pub struct StreamItemDecoder;

impl Decoder for StreamItemDecoder {
    type Item = StreamItem;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<StreamItem>, Status> {
        let item = VerifyStreamRequest::decode(&mut *buf).map_err(|_| Undecodable);
        buf.advance(buf.remaining());
        Ok(Some(item))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

/// Writes a [`StreamAnswer`] as a VerifyStreamResponse.
#[derive(Debug)]
pub struct StreamAnswerEncoder;

impl Encoder for StreamAnswerEncoder {
    type Item = StreamAnswer;
    type Error = Status;

    fn encode(&mut self, answer: StreamAnswer, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        if answer.id != 0 {
            prost::encoding::uint64::encode(1, &answer.id, buf);
        }
        match answer.result {
            Ok(accepted) => {
                let (fixed, varying) = (accepted.acceptance.answer(), Varying::of(&accepted.standing));
                let len = fixed.len() + varying.len;
                buf.reserve(len + 16);
                prost::encoding::encode_key(2, prost::encoding::WireType::LengthDelimited, buf);
                prost::encoding::encode_varint(len as u64, buf);
                buf.put_slice(fixed);
                buf.put_slice(varying.as_slice());
            }
            Err(status) => prost::encoding::message::encode(3, &status, buf),
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::v1::VerifyResponse;

    #[test]
    fn an_answer_decodes_to_what_was_put_together() {
        let fixed = VerifyResponse { issuer: "https://auth.example.com".into(), ..Default::default() };
        for (epoch, seq, staleness, stale) in [
            (0, 0, Duration::ZERO, false),
            (u64::MAX, u64::MAX, Duration::new(u64::from(u32::MAX), 999_999_999), true),
            (0x0123_4567_89ab_cdef, 10_203, Duration::from_millis(17), true),
        ] {
            let revision = Revision { epoch, seq };
            let mut bytes = fixed.encode_to_vec();
            bytes.extend_from_slice(Varying::of(&AnswerStanding { revision, staleness, stale }).as_slice());
            let response = VerifyResponse::decode(bytes.as_slice()).unwrap();
            assert_eq!(response.issuer, "https://auth.example.com");
            assert_eq!(response.revision, revision.to_string());
            assert_eq!(Duration::try_from(response.staleness.unwrap()), Ok(staleness));
            assert_eq!(response.stale, stale);
        }
    }
}
