//! A network path between two parts that can be cut, slowed, or made to lose what was said.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Longest that a sender which was answered by us may go on sending.
const LINGER: Duration = Duration::from_secs(2);
const CHUNK: usize = 16 << 10;

/// What a path does to those who use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// Connections are reset, those that there are and every new one.
    Cut,
    /// Every piece of data is this late.
    Slow(Duration),
    /// So many bytes pass in a second, each way.
    Narrow(u32),
    /// Nothing passes, and nothing breaks.
    Stall,
    /// Requests arrive, and every other answer is lost with its connection: the sender cannot know what became of them.
    LoseAnswers,
    /// Requests do not arrive; this is what the sender is told.
    Answer {
        status: &'static str,
        body: &'static str,
    },
    /// Every request also goes to the other end of the other path.
    Twice,
}

#[derive(Clone, Copy)]
struct State {
    trouble: Trouble,
    /// Connections of another age are broken.
    age: u64,
}

/// An open path.
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl Link {
    /// A path from a free port of loopback to `to`.
    pub async fn open(to: SocketAddr, other: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, watched) = watch::channel(State { trouble: Trouble::None, age: 0 });
        let answers = Arc::new(AtomicU64::new(0));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let path = Path { to, other, state: watched.clone(), answers: answers.clone() };
                tokio::spawn(path.carry(client));
            }
        });
        Ok(Self { address, state })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, trouble: Trouble) {
        self.state.send_modify(|state| {
            state.trouble = trouble;
            // A connection may go on through what only slows it.
            let breaks = matches!(trouble, Trouble::Cut | Trouble::Answer { .. } | Trouble::Twice);
            state.age += u64::from(breaks);
        });
    }

    /// Breaks every connection that there is.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.age += 1);
    }
}

/// What one connection needs.
struct Path {
    to: SocketAddr,
    other: SocketAddr,
    state: watch::Receiver<State>,
    answers: Arc<AtomicU64>,
}

/// The connection is to be reset.
struct Broken;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    There,
    Back,
}

impl Path {
    async fn carry(self, mut client: TcpStream) {
        let State { trouble, age } = *self.state.borrow();
        match trouble {
            Trouble::Cut => break_off(&client),
            Trouble::Answer { status, body } => answer(client, status, body).await,
            _ => match TcpStream::connect(self.to).await {
                Ok(mut server) => {
                    let twin = if trouble == Trouble::Twice { twin(self.other).await } else { None };
                    if self.relay(&mut client, &mut server, twin, age).await.is_err() {
                        break_off(&client);
                        break_off(&server);
                    }
                }
                Err(_) => break_off(&client),
            },
        }
    }

    async fn relay(
        &self,
        client: &mut TcpStream,
        server: &mut TcpStream,
        twin: Option<TcpStream>,
        age: u64,
    ) -> Result<(), Broken> {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let mut state = self.state.clone();
        let there = self.pass(Direction::There, &mut from_client, &mut to_server, twin);
        let back = self.pass(Direction::Back, &mut from_server, &mut to_client, None);
        tokio::select! {
            passed = async { tokio::try_join!(there, back) } => passed.map(drop),
            _ = state.wait_for(|state| state.age != age) => Err(Broken),
        }
    }

    async fn pass(
        &self,
        direction: Direction,
        from: &mut (impl tokio::io::AsyncRead + Unpin),
        to: &mut (impl tokio::io::AsyncWrite + Unpin),
        mut twin: Option<TcpStream>,
    ) -> Result<(), Broken> {
        let mut state = self.state.clone();
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk).await.map_err(|_| Broken)?;
            let trouble = state.borrow_and_update().trouble;
            match trouble {
                Trouble::Slow(delay) => tokio::time::sleep(delay).await,
                Trouble::Narrow(rate) => {
                    let bytes = u32::try_from(length).unwrap_or(u32::MAX);
                    tokio::time::sleep(Duration::from_secs(1) * bytes / rate).await;
                }
                Trouble::Stall => {
                    state.wait_for(|state| state.trouble != Trouble::Stall).await.map_err(|_| Broken)?;
                }
                Trouble::LoseAnswers
                    if direction == Direction::Back
                        && self.answers.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) =>
                {
                    return Err(Broken);
                }
                _ => {}
            }
            let piece = chunk.get(..length).unwrap_or_default();
            if piece.is_empty() {
                return to.shutdown().await.map_err(|_| Broken);
            }
            to.write_all(piece).await.map_err(|_| Broken)?;
            if let Some(twin) = &mut twin {
                // What becomes of it there is nobody's to know.
                let _ = twin.write_all(piece).await;
            }
        }
    }
}

/// A connection to the other end, whose answers are read and forgotten.
async fn twin(other: SocketAddr) -> Option<TcpStream> {
    TcpStream::connect(other).await.ok()
}

fn break_off(stream: &TcpStream) {
    // It may have been closed by the other side.
    let _ = stream.set_zero_linger();
}

async fn answer(mut client: TcpStream, status: &str, body: &str) {
    let head = "Retry-After: 1\r\nContent-Type: application/json\r\nConnection: close";
    let text = format!("HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // The request is read first: a client that is still sending may not read the answer.
    let mut request = vec![0; CHUNK];
    if client.read(&mut request).await.is_ok() && client.write_all(text.as_bytes()).await.is_ok() {
        let rest = async { while client.read(&mut request).await.is_ok_and(|length| length > 0) {} };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
}
