//! A client of the MySQL protocol that sends exactly the commands it is told, and tells what the server answered.
//!
//! Format: <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

const CONNECT_WITH_DB: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const LOCAL_FILES: u32 = 1 << 7;
const SECURE_CONNECTION: u32 = 1 << 15;
const MULTI_STATEMENTS: u32 = 1 << 16;
const MULTI_RESULTS: u32 = 1 << 17;
const PLUGIN_AUTH: u32 = 1 << 19;
const UTF8MB4: u8 = 45;
const MORE_RESULTS: u16 = 8;
/// No answer takes as long.
const PATIENCE: Duration = Duration::from_mins(2);

/// Numbers of commands (`enum_server_command`).
pub mod command {
    pub const QUIT: u8 = 1;
    pub const INIT_DB: u8 = 2;
    pub const QUERY: u8 = 3;
    pub const FIELD_LIST: u8 = 4;
    pub const STATISTICS: u8 = 9;
    pub const PROCESS_INFO: u8 = 10;
    pub const PROCESS_KILL: u8 = 12;
    pub const PING: u8 = 14;
    pub const CHANGE_USER: u8 = 17;
    pub const BINLOG_DUMP: u8 = 18;
    pub const REGISTER_SLAVE: u8 = 21;
    pub const STMT_PREPARE: u8 = 22;
    pub const STMT_EXECUTE: u8 = 23;
    pub const STMT_SEND_LONG_DATA: u8 = 24;
    pub const STMT_CLOSE: u8 = 25;
    pub const STMT_RESET: u8 = 26;
    pub const SET_OPTION: u8 = 27;
    pub const RESET_CONNECTION: u8 = 31;
}

/// The command went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the server answered with error {0}")]
    Refused(u16),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
}

impl Failure {
    /// The error's number, where the server gave one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(code) => Some(*code),
            Self::Broken(_) => None,
        }
    }
}

/// Where a connection goes to, and from where.
#[derive(Clone, Debug)]
pub enum Address {
    /// From an address of loopback to a port of 127.0.0.1, or of `::1` when it is one of IP version 6.
    Tcp {
        from: IpAddr,
        port: u16,
    },
    Socket(PathBuf),
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection.
pub struct Client {
    stream: Box<dyn Stream>,
    sequence: u8,
    /// As the server's greeting says.
    pub connection_id: u64,
    /// The client's own port, of TCP.
    pub port: Option<u16>,
}

/// What a command gave: of several results, those of the last, and how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub results: u32,
    /// None where the last result was no rows.
    pub rows: Option<u64>,
    /// None where it was rows.
    pub affected: Option<u64>,
}

impl Client {
    /// Connects and reads the greeting; nobody is logged in yet.
    pub fn connect(address: &Address) -> Result<Self, Failure> {
        let (stream, port): (Box<dyn Stream>, _) = match address {
            Address::Tcp { from, port } => {
                let stream = tcp(*from, *port)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let port = stream.local_addr()?.port();
                (Box::new(stream), Some(port))
            }
            Address::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                (Box::new(stream), None)
            }
        };
        let mut client = Self { stream, sequence: 0, connection_id: 0, port };
        let greeting = client.receive()?;
        check(&greeting)?;
        let version_end = greeting.iter().position(|&byte| byte == 0).ok_or_else(malformed)?;
        let id = greeting.get(version_end + 1..version_end + 5).ok_or_else(malformed)?;
        client.connection_id = little_endian(id);
        Ok(client)
    }

    /// Connects and logs in with an empty password.
    pub fn open(address: &Address, user: &str, database: &str) -> Result<Self, Failure> {
        let mut client = Self::connect(address)?;
        client.log_in(user, &[], database)?;
        Ok(client)
    }

    /// Logs in with these bytes in place of a scrambled password; none is an empty password.
    pub fn log_in(&mut self, user: &str, scramble: &[u8], database: &str) -> Result<(), Failure> {
        let mut login = Vec::new();
        let database_bit = if database.is_empty() { 0 } else { CONNECT_WITH_DB };
        let capabilities = PROTOCOL_41
            | SECURE_CONNECTION
            | PLUGIN_AUTH
            | MULTI_STATEMENTS
            | MULTI_RESULTS
            | LOCAL_FILES
            | database_bit;
        login.extend(capabilities.to_le_bytes());
        login.extend((1_u32 << 24).to_le_bytes());
        login.push(UTF8MB4);
        login.extend([0; 23]);
        login.extend(account(user, scramble));
        if !database.is_empty() {
            login.extend(terminated(database));
        }
        login.extend(terminated("mysql_native_password"));
        self.send(&login)?;
        self.authenticated()
    }

    fn authenticated(&mut self) -> Result<(), Failure> {
        let mut answer = self.receive()?;
        if answer.first() == Some(&0xfe) {
            // Asked to authenticate anew: the password is empty.
            self.send(&[])?;
            answer = self.receive()?;
        }
        check(&answer)
    }

    pub fn change_user(&mut self, user: &str, scramble: &[u8], database: &str) -> Result<(), Failure> {
        let mut body = account(user, scramble);
        body.extend(terminated(database));
        body.extend([UTF8MB4, 0]);
        body.extend(terminated("mysql_native_password"));
        self.tell(command::CHANGE_USER, &body)?;
        self.authenticated()
    }

    /// Sends a command that is answered with results: `COM_QUERY`, `COM_STMT_EXECUTE`, `COM_PROCESS_INFO`.
    pub fn ask(&mut self, number: u8, body: &[u8]) -> Result<Answer, Failure> {
        self.tell(number, body)?;
        self.answer()
    }

    /// Reads the results of a command.
    pub fn answer(&mut self) -> Result<Answer, Failure> {
        let mut answer = Answer::default();
        loop {
            let first = self.receive()?;
            check(&first)?;
            answer.results += 1;
            let status = if first.first() == Some(&0) {
                let (affected, rest) = length_encoded(first.get(1..).unwrap_or_default());
                let (_, rest) = length_encoded(rest);
                answer = Answer { rows: None, affected: Some(affected), ..answer };
                little_endian(rest.get(..2).unwrap_or_default())
            } else {
                self.skip_to_end()?;
                let (rows, status) = self.rows()?;
                answer = Answer { rows: Some(rows), affected: None, ..answer };
                status
            };
            if status & u64::from(MORE_RESULTS) == 0 {
                return Ok(answer);
            }
        }
    }

    /// Sends SQL that is answered with results.
    pub fn query(&mut self, sql: &str) -> Result<Answer, Failure> {
        self.ask(command::QUERY, sql.as_bytes())
    }

    /// Sends `LOAD DATA LOCAL`, and `contents` when the server asks for the file.
    pub fn load_local(&mut self, sql: &str, contents: &[u8]) -> Result<Answer, Failure> {
        self.tell(command::QUERY, sql.as_bytes())?;
        let asked = self.receive()?;
        check(&asked)?;
        if asked.first() != Some(&0xfb) {
            return Err(malformed().into());
        }
        self.send(contents)?;
        self.send(&[])?;
        self.answer()
    }

    /// Executes a prepared statement of one parameter, a `BIGINT`.
    pub fn execute(&mut self, statement: u32, parameter: i64) -> Result<Answer, Failure> {
        let mut body = statement.to_le_bytes().to_vec();
        // No cursor, one execution, no value is null, their types follow: one BIGINT.
        body.extend([0, 1, 0, 0, 0, 0, 1, 8, 0]);
        body.extend(parameter.to_le_bytes());
        self.ask(command::STMT_EXECUTE, &body)
    }

    pub fn ping(&mut self) -> Result<(), Failure> {
        self.one_answer(command::PING, &[])
    }

    pub fn init_db(&mut self, database: &str) -> Result<(), Failure> {
        self.one_answer(command::INIT_DB, database.as_bytes())
    }

    /// Ends the connection in good order.
    pub fn quit(mut self) -> Result<(), Failure> {
        self.tell(command::QUIT, &[])
    }

    /// Sends a command that is answered with one packet.
    pub fn one_answer(&mut self, number: u8, body: &[u8]) -> Result<(), Failure> {
        self.tell(number, body)?;
        let answer = self.receive()?;
        check(&answer)
    }

    /// Asks for the columns of a table.
    pub fn field_list(&mut self, table: &str) -> Result<(), Failure> {
        self.tell(command::FIELD_LIST, &terminated(table))?;
        loop {
            let packet = self.receive()?;
            check(&packet)?;
            if is_end(&packet) {
                return Ok(());
            }
        }
    }

    /// Prepares a statement and gives its number.
    pub fn prepare(&mut self, sql: &[u8]) -> Result<u32, Failure> {
        self.tell(command::STMT_PREPARE, sql)?;
        let answer = self.receive()?;
        check(&answer)?;
        let number = answer.get(1..5).and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed)?;
        for range in [7..9, 5..7] {
            if little_endian(answer.get(range).ok_or_else(malformed)?) > 0 {
                self.skip_to_end()?;
            }
        }
        Ok(u32::from_le_bytes(number))
    }

    /// Sends a command and waits for nothing.
    pub fn tell(&mut self, number: u8, body: &[u8]) -> Result<(), Failure> {
        self.sequence = 0;
        let mut packet = vec![number];
        packet.extend(body);
        self.send(&packet)
    }

    /// Reads until the server closes the connection.
    pub fn wait_for_end(&mut self) {
        // However it ends, it has ended.
        while self.receive().is_ok() {}
    }

    /// Rows up to the end of a result, and the status there.
    fn rows(&mut self) -> Result<(u64, u64), Failure> {
        let mut rows = 0;
        loop {
            let packet = self.receive()?;
            check(&packet)?;
            if is_end(&packet) {
                return Ok((rows, little_endian(packet.get(3..5).unwrap_or_default())));
            }
            rows += 1;
        }
    }

    fn skip_to_end(&mut self) -> Result<(), Failure> {
        loop {
            if is_end(&self.receive()?) {
                return Ok(());
            }
        }
    }

    fn send(&mut self, body: &[u8]) -> Result<(), Failure> {
        let length = u32::try_from(body.len()).map_err(|_| malformed())?.to_le_bytes();
        if length[3] != 0 {
            return Err(malformed().into());
        }
        let mut packet = vec![length[0], length[1], length[2], self.sequence];
        packet.extend(body);
        self.sequence = self.sequence.wrapping_add(1);
        Ok(self.stream.write_all(&packet)?)
    }

    /// Reads one packet, whatever it is.
    pub fn receive(&mut self) -> Result<Vec<u8>, io::Error> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        self.sequence = head[3].wrapping_add(1);
        let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }
}

fn tcp(from: IpAddr, port: u16) -> Result<TcpStream, io::Error> {
    let (family, to) = match from {
        IpAddr::V4(_) => (AddressFamily::Inet, IpAddr::from(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(_) => (AddressFamily::Inet6, IpAddr::from(Ipv6Addr::LOCALHOST)),
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to, port)))?;
    Ok(TcpStream::from(socket))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a packet is not as the protocol says")
}

fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&0xfe) && packet.len() < 9
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// A length-encoded integer, and what follows it.
fn length_encoded(bytes: &[u8]) -> (u64, &[u8]) {
    let (start, end) = match bytes.first() {
        Some(0xfc) => (1, 3),
        Some(0xfd) => (1, 4),
        Some(0xfe) => (1, 9),
        _ => (0, 1),
    };
    (little_endian(bytes.get(start..end).unwrap_or_default()), bytes.get(end..).unwrap_or_default())
}

fn account(user: &str, scramble: &[u8]) -> Vec<u8> {
    let mut bytes = terminated(user);
    // A scramble is 20 bytes.
    bytes.push(u8::try_from(scramble.len()).unwrap_or_default());
    bytes.extend(scramble);
    bytes
}

fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn check(answer: &[u8]) -> Result<(), Failure> {
    if answer.first() == Some(&0xff) {
        let code = little_endian(answer.get(1..3).unwrap_or_default());
        return Err(Failure::Refused(u16::try_from(code).unwrap_or_default()));
    }
    Ok(())
}
