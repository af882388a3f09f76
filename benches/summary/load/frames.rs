//! As much HTTP/2 as a load client needs: frames written from fixed bytes, frames read by their nine-byte head. Requests
//! use the header table as every gRPC client does, or the server would spend its time on headers that it sees once in
//! practice; what answers say in theirs is not read.

/// What a client says first: preface, settings (no push, large windows), and a large connection window.
pub const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x0c\x04\x00\x00\x00\x00\x00\
    \x00\x02\x00\x00\x00\x00\
    \x00\x04\x40\x00\x00\x00\
    \x00\x00\x04\x08\x00\x00\x00\x00\x00\x3f\x00\x00\x00";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

/// A frame's head.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

/// Reads a frame's head, if there are nine bytes.
pub fn head(bytes: &[u8]) -> Option<Head> {
    let [a, b, c, kind, flags, s, t, u, v] = *bytes.first_chunk::<9>()?;
    Some(Head {
        length: u32::from_be_bytes([0, a, b, c]) as usize,
        kind,
        flags,
        stream: u32::from_be_bytes([s & 0x7f, t, u, v]),
    })
}

/// Writes a frame.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.push(kind);
    out.push(flags);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A gRPC request's header block on a connection's later streams: all of it is in the tables (RFC 7541 §6.1).
pub const LATER_HEADERS: [u8; 6] = [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];

/// The block on a connection's first stream: literals that go into the table (RFC 7541 §6.2.1).
pub fn first_headers(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    let mut literal = |name: &str, value: &str| {
        block.push(0x40);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short header"));
            block.extend_from_slice(text.as_bytes());
        }
    };
    literal(":path", path);
    literal(":authority", "localhost");
    literal("content-type", "application/grpc");
    literal("te", "trailers");
    block
}

/// A gRPC message with its five-byte prefix.
pub fn message(payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(payload.len()).expect("a small message").to_be_bytes());
    message.extend_from_slice(payload);
    message
}
