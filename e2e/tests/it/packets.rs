//! Commands of the MySQL protocol that the command-line client does not send, each answered by one packet.
//!
//! Format: <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use whence_testkit::DatabaseServer;

const STATISTICS: u8 = 9;
const PING: u8 = 14;
const QUERY: u8 = 3;
/// `PROTOCOL_41`, `SECURE_CONNECTION`, `PLUGIN_AUTH`.
const CAPABILITIES: u32 = 1 << 9 | 1 << 15 | 1 << 19;

pub struct Packets(TcpStream);

impl Packets {
    /// Logs in with an empty password.
    pub fn connect(server: &DatabaseServer, user: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut packets = Self(stream);
        packets.receive();
        let head = [&CAPABILITIES.to_le_bytes()[..], &(1_u32 << 24).to_le_bytes(), &[45], &[0; 23]].concat();
        let login = [&head[..], user.as_bytes(), &[0, 0], b"mysql_native_password\0"].concat();
        packets.send(1, &login);
        assert_eq!(packets.receive()[0], 0, "not let in");
        packets
    }

    pub fn ping(&mut self) {
        self.send(0, &[PING]);
        assert_eq!(self.receive()[0], 0);
    }

    pub fn statistics(&mut self) {
        self.send(0, &[STATISTICS]);
        self.receive();
    }

    /// A statement that gives no rows.
    pub fn run(&mut self, sql: &str) {
        self.send(0, &[&[QUERY], sql.as_bytes()].concat());
        assert_eq!(self.receive()[0], 0, "{sql}");
    }

    fn send(&mut self, sequence: u8, body: &[u8]) {
        let [a, b, c, _] = u32::try_from(body.len()).unwrap().to_le_bytes();
        self.0.write_all(&[&[a, b, c, sequence], body].concat()).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut body).unwrap();
        body
    }
}
