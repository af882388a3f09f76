//! A load client that is not the limit: one thread, fixed bytes out, frame heads in. It spends about a microsecond a
//! call, so that a server on one core is what is measured. Every call has to be answered with a message, which a refusal
//! never has.

pub mod frames;

use frames::*;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    Tcp(std::net::SocketAddr),
    Unix(std::path::PathBuf),
}

/// How to load it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub connections: usize,
    /// Calls under way on each connection, at most.
    pub streams: usize,
    /// A connection is filled up again once so many are answered: a client that answers every answer at once would make
    /// the servers spend their time on system calls, and hide what they differ in.
    pub refill: usize,
    pub calls: usize,
    /// Calls a second over all connections; `None` as fast as answers come.
    pub rate: Option<f64>,
    /// Many messages on one stream a connection, instead of a stream a call.
    pub streaming: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub per_second: f64,
    /// From a call's due moment to its end, sorted.
    pub latencies: Vec<Duration>,
}

impl Outcome {
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(address: &Address) -> Self {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).expect("the server listens");
                stream.set_nodelay(true).expect("nodelay");
                stream.set_nonblocking(true).expect("nonblocking");
                Self::Tcp(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).expect("the server listens");
                stream.set_nonblocking(true).expect("nonblocking");
                Self::Unix(stream)
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
        }
    }
}

struct Connection {
    stream: Stream,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    buffer: Box<[u8]>,
    taken: usize,
    next_stream: u32,
    /// When each call under way was due, by stream id where each has one, else in order; and whether its message came.
    under_way: VecDeque<(u32, Instant, bool)>,
    /// It is being filled up.
    filling: bool,
    /// What the peer lets us send.
    window: i64,
    stream_window: i64,
    initial_window: i64,
    /// What is left of a message of a stream when a frame ends in its middle.
    partial: Vec<u8>,
    received: usize,
}

/// Loads the server with `bodies` in turn until `plan.calls` were answered.
pub fn run(address: &Address, path: &str, bodies: &[Vec<u8>], plan: Plan) -> Outcome {
    let headers = first_headers(path);
    let messages: Vec<Vec<u8>> = bodies.iter().map(|body| message(body)).collect();
    let mut connections: Vec<Connection> = (0..plan.connections).map(|_| Connection::open(address)).collect();
    if plan.streaming {
        for connection in &mut connections {
            put(&mut connection.out, HEADERS, END_HEADERS, 1, &headers);
        }
    }
    let mut latencies = Vec::with_capacity(plan.calls);
    let mut sent = 0;
    let start = Instant::now();
    let deadline = start + Duration::from_secs(120);
    while latencies.len() < plan.calls {
        for connection in &mut connections {
            connection.receive(plan.streaming, &mut latencies);
        }
        let now = Instant::now();
        assert!(now < deadline, "the server answered {} of {} calls in time", latencies.len(), plan.calls);
        let mut waiting = true;
        for index in 0..connections.len() {
            while sent < plan.calls {
                let due = match plan.rate {
                    Some(rate) => start + Duration::from_secs_f64(sent as f64 / rate),
                    None => now,
                };
                // A paced call goes to whichever connection's turn it is; a free-running one fills this connection.
                let turn = if plan.rate.is_some() { sent % plan.connections } else { index };
                let connection = &mut connections[turn];
                let message = &messages[sent % messages.len()];
                if due > now || !connection.has_room(plan, message.len()) {
                    break;
                }
                connection.call(&headers, message, due, plan.streaming);
                connection.filling = connection.under_way.len() < plan.streams;
                sent += 1;
                waiting = false;
            }
            connections[index].flush();
        }
        if waiting {
            // The core is this client's own. Asleep it would have to be woken, which on a virtual machine takes longer than a
            // hundred calls, and the server would sleep meanwhile, too.
            std::hint::spin_loop();
        }
    }
    let took = start.elapsed();
    latencies.sort_unstable();
    Outcome { per_second: latencies.len() as f64 / took.as_secs_f64(), latencies }
}

impl Connection {
    fn open(address: &Address) -> Self {
        Self {
            stream: Stream::connect(address),
            out: HELLO.to_vec(),
            written: 0,
            input: Vec::new(),
            buffer: vec![0; 64 * 1024].into(),
            taken: 0,
            next_stream: 1,
            under_way: VecDeque::new(),
            filling: true,
            window: 65_535,
            stream_window: 65_535,
            initial_window: 65_535,
            partial: Vec::new(),
            received: 0,
        }
    }

    fn has_room(&self, plan: Plan, length: usize) -> bool {
        let window = if plan.streaming { self.window.min(self.stream_window) } else { self.window };
        let filling = self.filling || self.under_way.len() + plan.refill <= plan.streams;
        filling && self.under_way.len() < plan.streams && window >= length as i64
    }

    fn call(&mut self, headers: &[u8], message: &[u8], due: Instant, streaming: bool) {
        let length = message.len() as i64;
        self.window -= length;
        if streaming {
            self.stream_window -= length;
            put(&mut self.out, DATA, 0, 1, message);
            self.under_way.push_back((1, due, false));
        } else {
            let block = if self.next_stream == 1 { headers } else { &LATER_HEADERS };
            put(&mut self.out, HEADERS, END_HEADERS, self.next_stream, block);
            put(&mut self.out, DATA, END_STREAM, self.next_stream, message);
            self.under_way.push_back((self.next_stream, due, false));
            self.next_stream += 2;
        }
    }

    fn flush(&mut self) {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the server went away: {error}"),
            }
        }
        self.out.clear();
        self.written = 0;
    }

    fn receive(&mut self, streaming: bool, latencies: &mut Vec<Duration>) {
        let Self { stream, buffer, input, .. } = self;
        match stream.read(buffer) {
            Ok(0) => panic!("the server closed the connection"),
            Ok(count) => input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("the server went away: {error}"),
        }
        let now = Instant::now();
        let input = std::mem::take(&mut self.input);
        self.taken = 0;
        while let Some(head) = head(&input[self.taken..]) {
            let from = self.taken + 9;
            let Some(payload) = input.get(from..from + head.length) else { break };
            self.frame(head, payload, now, streaming, latencies);
            self.taken = from + head.length;
        }
        self.input = input;
        self.input.drain(..self.taken);
    }

    fn frame(
        &mut self,
        head: Head,
        payload: &[u8],
        now: Instant,
        streaming: bool,
        latencies: &mut Vec<Duration>,
    ) {
        match head.kind {
            DATA => {
                self.consumed(head, payload.len(), streaming);
                if streaming {
                    self.messages(payload, now, latencies);
                } else if let Some(call) = self.under_way.iter_mut().find(|call| call.0 == head.stream) {
                    call.2 |= !payload.is_empty();
                }
            }
            HEADERS if head.flags & END_STREAM != 0 => {
                assert!(!streaming, "the server ended the stream");
                let at =
                    self.under_way.iter().position(|call| call.0 == head.stream).expect("a call under way");
                let (_, due, answered) = self.under_way.remove(at).expect("it was found");
                assert!(answered, "a call was refused");
                latencies.push(now.saturating_duration_since(due));
            }
            SETTINGS if head.flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    let value =
                        i64::from(u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
                    if setting[..2] == [0, 4] {
                        self.stream_window += value - self.initial_window;
                        self.initial_window = value;
                    }
                }
                put(&mut self.out, SETTINGS, ACK, 0, b"");
            }
            PING if head.flags & ACK == 0 => put(&mut self.out, PING, ACK, 0, payload),
            WINDOW_UPDATE => {
                let more = i64::from(u32::from_be_bytes(*payload.first_chunk().expect("four bytes")));
                if head.stream == 0 { self.window += more } else { self.stream_window += more }
            }
            RST_STREAM | GOAWAY => panic!("the server refused: frame {} {payload:?}", head.kind),
            _ => {}
        }
    }

    /// Gives the peer its windows back, seldom: they are large.
    fn consumed(&mut self, head: Head, length: usize, streaming: bool) {
        self.received += length;
        if self.received > 1 << 28 {
            let more = u32::try_from(self.received).expect("below the window").to_be_bytes();
            put(&mut self.out, WINDOW_UPDATE, 0, 0, &more);
            if streaming {
                put(&mut self.out, WINDOW_UPDATE, 0, head.stream, &more);
            }
            self.received = 0;
        }
    }

    fn messages(&mut self, payload: &[u8], now: Instant, latencies: &mut Vec<Duration>) {
        self.partial.extend_from_slice(payload);
        let mut taken = 0;
        while let Some([_, length @ ..]) = self.partial[taken..].first_chunk::<5>() {
            let end = taken + 5 + u32::from_be_bytes(*length) as usize;
            if end > self.partial.len() {
                break;
            }
            taken = end;
            let (_, due, _) = self.under_way.pop_front().expect("an answer to a call");
            latencies.push(now.saturating_duration_since(due));
        }
        self.partial.drain(..taken);
    }
}
