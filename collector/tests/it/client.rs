//! A client of the MySQL protocol that is small enough to send exactly the commands that a test wants.
//!
//! Format: <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use whence_testkit::{DatabaseServer, Via};

const CONNECT_WITH_DB: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
const UTF8MB4: u8 = 45;

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// The server refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub u16);

/// A connection.
pub struct Client {
    stream: Box<dyn Stream>,
    sequence: u8,
    /// As the server's greeting says.
    pub connection_id: u64,
    /// The client's own port, of TCP.
    pub port: Option<u16>,
}

/// What a command gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub rows: u64,
    pub affected: u64,
}

impl Client {
    /// Logs in with an empty password.
    pub fn connect(server: &DatabaseServer, via: Via, user: &str, database: &str) -> Result<Self, Refused> {
        Self::connect_with(server, via, user, &[], database)
    }

    /// Logs in with these bytes in place of a scrambled password.
    pub fn connect_with(
        server: &DatabaseServer,
        via: Via,
        user: &str,
        scramble: &[u8],
        database: &str,
    ) -> Result<Self, Refused> {
        let (stream, port): (Box<dyn Stream>, _) = match via {
            Via::Tcp => {
                let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
                let port = stream.local_addr().unwrap().port();
                (Box::new(stream), Some(port))
            }
            Via::Socket => (Box::new(UnixStream::connect(server.socket()).unwrap()), None),
        };
        let mut client = Self { stream, sequence: 0, connection_id: 0, port };
        let greeting = client.receive();
        let version_end = greeting.iter().position(|&byte| byte == 0).unwrap();
        let id = greeting[version_end + 1..][..4].try_into().unwrap();
        client.connection_id = u64::from(u32::from_le_bytes(id));

        let mut login = Vec::new();
        let database_bit = if database.is_empty() { 0 } else { CONNECT_WITH_DB };
        let capabilities = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH | database_bit;
        login.extend(capabilities.to_le_bytes());
        login.extend((1u32 << 24).to_le_bytes());
        login.push(UTF8MB4);
        login.extend([0; 23]);
        login.extend(account(user, scramble));
        if !database.is_empty() {
            login.extend(terminated(database));
        }
        login.extend(terminated("mysql_native_password"));
        client.send(&login);
        client.authenticated()?;
        Ok(client)
    }

    fn authenticated(&mut self) -> Result<(), Refused> {
        let mut answer = self.receive();
        if answer[0] == 0xfe {
            // Asked to authenticate anew: the password is empty.
            self.send(&[]);
            answer = self.receive();
        }
        check(&answer)
    }

    pub fn query(&mut self, sql: &str) -> Result<Answer, Refused> {
        self.command(3, sql.as_bytes());
        self.answer()
    }

    pub fn ping(&mut self) {
        self.command(14, &[]);
        check(&self.receive()).unwrap();
    }

    pub fn init_db(&mut self, database: &str) -> Result<(), Refused> {
        self.command(2, database.as_bytes());
        check(&self.receive())
    }

    pub fn change_user(&mut self, user: &str, database: &str) -> Result<(), Refused> {
        let mut body = account(user, &[]);
        body.extend(terminated(database));
        body.extend([UTF8MB4, 0]);
        body.extend(terminated("mysql_native_password"));
        self.command(17, &body);
        self.authenticated()
    }

    /// Prepares a statement and gives its number.
    pub fn prepare(&mut self, sql: &str) -> Result<u32, Refused> {
        self.command(22, sql.as_bytes());
        let answer = self.receive();
        check(&answer)?;
        let number = u32::from_le_bytes(answer[1..5].try_into().unwrap());
        let columns = u16::from_le_bytes(answer[5..7].try_into().unwrap());
        let parameters = u16::from_le_bytes(answer[7..9].try_into().unwrap());
        for described in [parameters, columns] {
            if described > 0 {
                self.skip_to_end();
            }
        }
        Ok(number)
    }

    /// Executes a prepared statement of one parameter.
    pub fn execute(&mut self, statement: u32, parameter: i64) -> Result<Answer, Refused> {
        let mut body = Vec::new();
        body.extend(statement.to_le_bytes());
        body.push(0);
        body.extend(1u32.to_le_bytes());
        // No parameter is null, their types follow: one BIGINT.
        body.extend([0, 1, 8, 0]);
        body.extend(parameter.to_le_bytes());
        self.command(23, &body);
        self.answer()
    }

    pub fn close_statement(&mut self, statement: u32) {
        self.command(25, &statement.to_le_bytes());
    }

    pub fn quit(mut self) {
        self.command(1, &[]);
    }

    fn command(&mut self, number: u8, body: &[u8]) {
        self.sequence = 0;
        let mut packet = vec![number];
        packet.extend(body);
        self.send(&packet);
    }

    fn answer(&mut self) -> Result<Answer, Refused> {
        let first = self.receive();
        check(&first)?;
        if first[0] == 0 {
            return Ok(Answer { rows: 0, affected: u64::from(first[1]) });
        }
        self.skip_to_end();
        self.rows()
    }

    fn rows(&mut self) -> Result<Answer, Refused> {
        let mut rows = 0;
        loop {
            let packet = self.receive();
            match packet[0] {
                0xfe if packet.len() < 9 => return Ok(Answer { rows, affected: 0 }),
                0xff => check(&packet)?,
                _ => rows += 1,
            }
        }
    }

    fn skip_to_end(&mut self) {
        loop {
            let packet = self.receive();
            if packet[0] == 0xfe && packet.len() < 9 {
                return;
            }
        }
    }

    fn send(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        assert_eq!(length[3], 0, "a packet of this client is one packet");
        let mut packet = vec![length[0], length[1], length[2], self.sequence];
        packet.extend(body);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).unwrap();
        self.sequence = head[3].wrapping_add(1);
        let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        self.stream.read_exact(&mut body).unwrap();
        body
    }
}

fn account(user: &str, scramble: &[u8]) -> Vec<u8> {
    let mut bytes = terminated(user);
    bytes.push(u8::try_from(scramble.len()).unwrap());
    bytes.extend(scramble);
    bytes
}

fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn check(answer: &[u8]) -> Result<(), Refused> {
    if answer[0] == 0xff { Err(Refused(u16::from_le_bytes([answer[1], answer[2]]))) } else { Ok(()) }
}
