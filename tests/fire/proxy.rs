//! A proxy on the loopback between an engine and a server: it does to requests what networks and busy servers do.
//!
//! It knows of HTTP/1.1 (RFC 9112) as much as is needed to tell one request and one answer from the next. What it does to a request follows from a
//! seed and from how many came before.

use super::http::{self, Head};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, sleep_until};

/// What can happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// 500, and nothing was done.
    ServerError,
    /// 503 with `Retry-After: 0`, and nothing was done.
    Unavailable,
    /// 429 with `Retry-After: 0`, and nothing was done.
    TooMany,
    /// The connection is reset in the middle of the request's body.
    ResetRequest,
    /// The connection is reset in the middle of the answer.
    ResetAnswer,
    /// The answer ends too early, in good order.
    Truncate,
    /// The server did it, and nobody is told.
    LoseAnswer,
    /// The server gets the request twice; the second answer is given.
    Duplicate,
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::ServerError,
        Self::Unavailable,
        Self::TooMany,
        Self::ResetRequest,
        Self::ResetAnswer,
        Self::Truncate,
        Self::LoseAnswer,
        Self::Duplicate,
    ];
}

/// What it is like between the engine and the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    /// Passes before a request is handed on.
    pub latency: Duration,
    /// Up to as much again, at random.
    pub jitter: Duration,
    /// Octets a second, both ways together.
    pub bandwidth: Option<u64>,
    /// Of a thousand requests, how many meet one of `faults`.
    pub faulty: u64,
    pub faults: Vec<Fault>,
    /// Requests a second; others are answered by 503 with `Retry-After: 1`.
    pub rate: Option<u64>,
    pub seed: u64,
}

/// Stops when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    sky: Arc<Sky>,
    /// A runtime of its own: the engine's may be busy, or gone.
    _runtime: Runtime,
}

/// What all connections share.
struct Sky {
    server: SocketAddr,
    weather: Weather,
    requests: Mutex<u64>,
    one_more: Condvar,
    met: Mutex<BTreeMap<Fault, u64>>,
    /// When the wire is free again.
    wire: Mutex<Option<Instant>>,
    /// Each request's second, and whether it was refused, while there is a rate.
    answers: Mutex<Vec<(Duration, bool)>>,
    begun: Instant,
    granted: Mutex<Option<Instant>>,
}

impl Proxy {
    /// Listens on a free port and hands requests to `server`.
    pub(crate) fn start(server: SocketAddr, weather: Weather) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let sky = Arc::new(Sky {
            server,
            weather,
            requests: Mutex::new(0),
            one_more: Condvar::new(),
            met: Mutex::default(),
            wire: Mutex::default(),
            answers: Mutex::default(),
            begun: Instant::now(),
            granted: Mutex::default(),
        });
        let shared = Arc::clone(&sky);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let sky = Arc::clone(&shared);
                #[allow(clippy::disallowed_methods, reason = "no transfer: the other side of the wire")]
                tokio::spawn(async move {
                    // A connection that ends early is what this proxy is about.
                    let _ = Connection::new(client, sky).serve().await;
                });
            }
        });
        Self { address, sky, _runtime: runtime }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have come.
    pub(crate) fn requests(&self) -> u64 {
        *self.sky.requests.lock().unwrap()
    }

    /// Returns when as many requests have come, or after a minute without any.
    pub(crate) fn wait_for_requests(&self, count: u64) {
        let mut requests = self.sky.requests.lock().unwrap();
        while *requests < count {
            let (now, waited) = self.sky.one_more.wait_timeout(requests, Duration::from_secs(60)).unwrap();
            assert!(!waited.timed_out(), "no request for a minute, {} in all", *now);
            requests = now;
        }
    }

    /// How many requests have met each fault.
    pub(crate) fn met(&self) -> BTreeMap<Fault, u64> {
        self.sky.met.lock().unwrap().clone()
    }

    /// When each request came, counted from the start, and whether it was refused.
    pub(crate) fn answers(&self) -> Vec<(Duration, bool)> {
        self.sky.answers.lock().unwrap().clone()
    }
}

impl Sky {
    /// The number of a request that has just come.
    fn count(&self) -> u64 {
        let mut requests = self.requests.lock().unwrap();
        *requests += 1;
        self.one_more.notify_all();
        *requests
    }

    /// A number for the request `ordinal`, and for `purpose`: the same in every run.
    fn random(&self, ordinal: u64, purpose: u64) -> u64 {
        let mut bits = self.weather.seed ^ ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose << 56;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn fault(&self, ordinal: u64) -> Option<Fault> {
        if self.weather.faults.is_empty() || self.random(ordinal, 1) % 1000 >= self.weather.faulty {
            return None;
        }
        let fault = self.weather.faults[(self.random(ordinal, 2) % self.weather.faults.len() as u64) as usize];
        *self.met.lock().unwrap().entry(fault).or_default() += 1;
        Some(fault)
    }

    /// Whether the rate has room for one more request now. A tenth of a second's worth may come at once.
    fn grants(&self) -> bool {
        let Some(rate) = self.weather.rate else { return true };
        let now = Instant::now();
        let mut granted = self.granted.lock().unwrap();
        let next = granted.unwrap_or(now).max(now - Duration::from_millis(100));
        let is_granted = next <= now;
        if is_granted {
            *granted = Some(next + Duration::from_secs(1) / rate as u32);
        }
        self.answers.lock().unwrap().push((now - self.begun, !is_granted));
        is_granted
    }

    async fn delay(&self, ordinal: u64) {
        let jitter = self.weather.jitter.as_micros() as u64;
        let extra = if jitter == 0 { 0 } else { self.random(ordinal, 3) % jitter };
        let all = self.weather.latency + Duration::from_micros(extra);
        if !all.is_zero() {
            sleep(all).await;
        }
    }

    /// Waits until the wire has carried `octets`.
    async fn carry(&self, octets: usize) {
        let Some(bandwidth) = self.weather.bandwidth else { return };
        let until = {
            let mut wire = self.wire.lock().unwrap();
            let from = wire.unwrap_or_else(Instant::now).max(Instant::now());
            *wire.insert(from + Duration::from_secs_f64(octets as f64 / bandwidth as f64))
        };
        sleep_until(until).await;
    }
}

type Reader = BufReader<OwnedReadHalf>;

struct Connection {
    sky: Arc<Sky>,
    from_client: Reader,
    to_client: OwnedWriteHalf,
    server: Option<(Reader, OwnedWriteHalf)>,
}

/// How a request ended.
enum End {
    /// Another may come on the same connection.
    Next,
    Close,
    Reset,
}

impl Connection {
    fn new(client: TcpStream, sky: Arc<Sky>) -> Self {
        let _ = client.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        Self { sky, from_client: BufReader::with_capacity(64 << 10, from_client), to_client, server: None }
    }

    async fn serve(mut self) -> io::Result<()> {
        while let Some(request) = http::head(&mut self.from_client).await? {
            match self.request(&request).await? {
                End::Next => {}
                End::Close => break,
                End::Reset => {
                    // Closed with octets unsent, or unread: the system resets it (RFC 1122, 4.2.2.13).
                    let _ = self.to_client.as_ref().set_zero_linger();
                    break;
                }
            }
        }
        Ok(())
    }

    async fn request(&mut self, request: &Head) -> io::Result<End> {
        let ordinal = self.sky.count();
        self.sky.delay(ordinal).await;
        if !self.sky.grants() {
            return self.refuse(request, "503 Service Unavailable", 1).await;
        }
        let Some(fault) = self.sky.fault(ordinal) else { return self.pass(request).await };
        match fault {
            Fault::ServerError => self.refuse(request, "500 Internal Server Error", 0).await,
            Fault::Unavailable => self.refuse(request, "503 Service Unavailable", 0).await,
            Fault::TooMany => self.refuse(request, "429 Too Many Requests", 0).await,
            Fault::ResetRequest => self.reset_request(request).await,
            Fault::Duplicate => self.duplicate(request).await,
            Fault::LoseAnswer | Fault::ResetAnswer | Fault::Truncate => self.spoil_answer(request, fault).await,
        }
    }

    async fn server(&mut self) -> io::Result<&mut (Reader, OwnedWriteHalf)> {
        if self.server.is_none() {
            let stream = TcpStream::connect(self.sky.server).await?;
            let _ = stream.set_nodelay(true);
            let (from, to) = stream.into_split();
            self.server = Some((BufReader::with_capacity(64 << 10, from), to));
        }
        Ok(self.server.as_mut().unwrap())
    }

    /// Hands the request on and the answer back, as they come.
    async fn pass(&mut self, request: &Head) -> io::Result<End> {
        let sky = Arc::clone(&self.sky);
        self.server().await?;
        let (from_server, to_server) = self.server.as_mut().unwrap();
        to_server.write_all(request.octets()).await?;
        let mut body = request.body_of_request();
        while let Some(piece) = body.next(&mut self.from_client).await? {
            sky.carry(piece.len()).await;
            to_server.write_all(&piece).await?;
        }
        let answer = loop {
            let answer = http::head(from_server).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.to_client.write_all(answer.octets()).await?;
            if !answer.is_interim() {
                break answer;
            }
        };
        let mut body = answer.body_of_answer(request);
        while let Some(piece) = body.next(from_server).await? {
            sky.carry(piece.len()).await;
            self.to_client.write_all(&piece).await?;
        }
        Ok(if answer.closes(request) { End::Close } else { End::Next })
    }

    /// Answers by itself.
    async fn refuse(&mut self, request: &Head, status: &str, retry_after: u64) -> io::Result<End> {
        request.body_of_request().all(&mut self.from_client).await?;
        let after = if status.starts_with("500") { String::new() } else { format!("Retry-After: {retry_after}\r\n") };
        let answer = format!("HTTP/1.1 {status}\r\n{after}Content-Length: 0\r\n\r\n");
        self.to_client.write_all(answer.as_bytes()).await?;
        Ok(End::Next)
    }

    async fn reset_request(&mut self, request: &Head) -> io::Result<End> {
        let body = request.body_of_request().all(&mut self.from_client).await?;
        let (_, to_server) = self.server().await?;
        to_server.write_all(request.octets()).await?;
        to_server.write_all(&body[..body.len() / 2]).await?;
        let (_, to_server) = self.server.take().unwrap();
        let _ = to_server.as_ref().set_zero_linger();
        Ok(End::Reset)
    }

    /// The whole answer of the server, head and body.
    async fn answer(&mut self, request: &Head, body: &[u8]) -> io::Result<(Head, Vec<u8>)> {
        let (from_server, to_server) = self.server().await?;
        to_server.write_all(request.octets()).await?;
        to_server.write_all(body).await?;
        loop {
            let answer = http::head(from_server).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if !answer.is_interim() {
                let octets = answer.body_of_answer(request).all(from_server).await?;
                if answer.closes(request) {
                    self.server = None;
                }
                return Ok((answer, octets));
            }
        }
    }

    async fn duplicate(&mut self, request: &Head) -> io::Result<End> {
        let body = request.body_of_request().all(&mut self.from_client).await?;
        self.answer(request, &body).await?;
        let (answer, octets) = self.answer(request, &body).await?;
        self.to_client.write_all(answer.octets()).await?;
        self.to_client.write_all(&octets).await?;
        Ok(if answer.closes(request) { End::Close } else { End::Next })
    }

    async fn spoil_answer(&mut self, request: &Head, fault: Fault) -> io::Result<End> {
        let body = request.body_of_request().all(&mut self.from_client).await?;
        let (answer, octets) = self.answer(request, &body).await?;
        if fault == Fault::LoseAnswer {
            return Ok(End::Reset);
        }
        let whole = [answer.octets(), &octets].concat();
        // With no body there is only the head to cut.
        let cut = if octets.is_empty() { whole.len() / 2 } else { answer.octets().len() + octets.len() / 2 };
        self.to_client.write_all(&whole[..cut]).await?;
        Ok(if fault == Fault::Truncate { End::Close } else { End::Reset })
    }
}
