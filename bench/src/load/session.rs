//! One connection and its journal: every command as it was sent, with what the server answered.

use std::net::Ipv4Addr;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::statements;
use crate::entry::{Entry, What, Wording};
use whence_testkit::client::{Address, Answer, Client, Failure, command};

/// What a client knows of its connection, from first to last.
#[derive(Debug)]
pub struct Journal {
    pub connection_id: u64,
    pub entries: Vec<Entry>,
}

/// A connection that is logged in.
pub struct Session {
    client: Client,
    /// What the next entry says of the connection.
    state: Entry,
    table: String,
    entries: Vec<Entry>,
}

/// How a login is tried.
pub struct Login<'a> {
    pub user: &'a str,
    /// The account that will apply.
    pub account: &'a str,
    pub scramble: &'a [u8],
    pub database: &'a str,
}

/// A login and what came of it.
pub enum Tried {
    In(Box<Session>),
    Refused(Journal),
}

/// A value for a `?`.
enum Value {
    Number(i64),
    Text(String),
    /// Sent before, with `COM_STMT_SEND_LONG_DATA`.
    Sent,
}

impl Session {
    /// Tries to log in.
    pub fn open(address: &Address, login: &Login<'_>, table: String) -> Result<Tried, Failure> {
        let mut client = Client::connect(address)?;
        let mut state = Entry::new(What::Connect);
        state.login_user = Some(login.user.to_owned());
        (state.client_host, state.client_ip) = match address {
            Address::Tcp { from, .. } if *from == Ipv4Addr::LOCALHOST => {
                (Some("localhost".into()), Some(Some(*from)))
            }
            Address::Tcp { from, .. } => (Some(from.to_string()), Some(Some(*from))),
            Address::Socket(_) => (Some("localhost".into()), Some(None)),
        };
        state.client_port = Some(client.port);
        match client.log_in(login.user, login.scramble, login.database) {
            Ok(()) => {}
            Err(Failure::Refused(code)) => {
                state.what = What::ConnectFailed;
                state.code = Some(code.into());
                return Ok(Tried::Refused(Journal {
                    connection_id: client.connection_id,
                    entries: vec![state],
                }));
            }
            Err(broken) => return Err(broken),
        }
        state.account = Some(login.account.to_owned());
        state.database = Some(named(login.database));
        let connected = Entry { code: Some(0), ..state.clone() };
        Ok(Tried::In(Box::new(Self { client, state, table, entries: vec![connected] })))
    }

    /// Commands in the journal, without the login.
    pub fn commands(&self) -> usize {
        self.entries.len() - 1
    }

    /// Ends it in good order.
    pub fn quit(mut self) -> Result<Journal, Failure> {
        self.note(What::Command(command::QUIT.into()), None);
        self.client.tell(command::QUIT, &[])?;
        Ok(self.ended())
    }

    /// Ends it as a client that dies.
    pub fn drop_connection(self) -> Journal {
        self.ended()
    }

    /// Ends it with a command that kills it.
    pub fn kill(mut self) -> Result<Journal, Failure> {
        let sql = b"KILL CONNECTION_ID()";
        let entry = self.note(What::Command(command::QUERY.into()), Some(sql));
        // It may be answered with an error or with nothing; the server's logs know the number.
        entry.code = None;
        match self.client.ask(command::QUERY, sql) {
            Ok(_) | Err(Failure::Refused(_)) => self.client.wait_for_end(),
            Err(Failure::Broken(_)) => {}
        }
        Ok(self.ended())
    }

    fn ended(mut self) -> Journal {
        let mut entry = self.state;
        entry.what = What::Disconnect;
        self.entries.push(entry);
        Journal { connection_id: self.client.connection_id, entries: self.entries }
    }

    /// Sends one statement.
    pub fn query(&mut self, sql: &[u8]) -> Result<Option<Answer>, Failure> {
        self.note(What::Command(command::QUERY.into()), Some(sql));
        let answer = self.client.ask(command::QUERY, sql);
        self.answered(answer)
    }

    /// Sends one command, or a few that belong together.
    pub fn step(&mut self, random: &mut StdRng) -> Result<(), Failure> {
        match random.gen_range(0..100) {
            0..58 | 97..99 => self.statement(random),
            58..66 => self.simple(command::PING, &[]),
            66..70 => {
                let name = *["shop", "logs", "nowhere"].choose(random).unwrap_or(&"shop");
                self.init_db(name)
            }
            70..72 => {
                self.note(What::Command(command::STATISTICS.into()), None);
                self.client.one_answer(command::STATISTICS, &[]).or_else(refused)
            }
            72..88 => self.prepared(random),
            88..90 => {
                let sql =
                    format!("SELECT * FROM shop.missing WHERE id = ? AND {}", random.gen_range(0..=u32::MAX));
                self.prepare(sql.as_bytes()).map(drop)
            }
            90..92 => self.field_list(random),
            92..93 => self.simple(command::SET_OPTION, &[0, 0]),
            93..94 => self.simple(command::RESET_CONNECTION, &[]),
            94..95 => {
                self.note(What::Command(command::PROCESS_INFO.into()), None);
                let answer = self.client.ask(command::PROCESS_INFO, &[]);
                self.answered(answer).map(drop)
            }
            95..96 => self.simple(command::PROCESS_KILL, &3_900_000_000_u32.to_le_bytes()),
            96..97 => self.simple(super::UNKNOWN_COMMAND, &[]),
            _ => self.change_user(random),
        }
    }

    fn statement(&mut self, random: &mut StdRng) -> Result<(), Failure> {
        let statement = statements::any(random, &self.table);
        let answer = self.query(&statement.sql)?;
        if let (Some(_), Some(database)) = (answer, statement.database) {
            self.state.database = Some(Some(database.to_owned()));
        }
        Ok(())
    }

    fn simple(&mut self, number: u8, body: &[u8]) -> Result<(), Failure> {
        self.note(What::Command(number.into()), None);
        let answer = self.client.one_answer(number, body).map(|()| Answer::default());
        self.answered(answer).map(drop)
    }

    fn init_db(&mut self, name: &str) -> Result<(), Failure> {
        self.note(What::Command(command::INIT_DB.into()), None);
        let answer = self.client.one_answer(command::INIT_DB, name.as_bytes()).map(|()| Answer::default());
        if self.answered(answer)?.is_some() {
            self.state.database = Some(named(name));
        }
        Ok(())
    }

    fn field_list(&mut self, random: &mut StdRng) -> Result<(), Failure> {
        let table = *["items", "missing"].choose(random).unwrap_or(&"items");
        self.note(What::Command(command::FIELD_LIST.into()), None);
        let answer = self.client.field_list(table).map(|()| Answer::default());
        self.answered(answer).map(drop)
    }

    fn change_user(&mut self, random: &mut StdRng) -> Result<(), Failure> {
        let user = *super::ACCOUNTS.choose(random).unwrap_or(&"app");
        let database = *["", "shop"].choose(random).unwrap_or(&"");
        self.note(What::Command(command::CHANGE_USER.into()), None);
        let answer = self.client.change_user(user, &[], database).map(|()| Answer::default());
        if self.answered(answer)?.is_some() {
            self.state.login_user = Some(user.to_owned());
            self.state.account = Some(user.to_owned());
            self.state.database = Some(named(database));
            // The event tells of the account and the database that it led to.
            if let Some(entry) = self.entries.last_mut() {
                entry.login_user.clone_from(&self.state.login_user);
                entry.account.clone_from(&self.state.account);
                entry.database.clone_from(&self.state.database);
            }
        }
        Ok(())
    }

    /// Prepares, executes some times, and often closes.
    fn prepared(&mut self, random: &mut StdRng) -> Result<(), Failure> {
        let mark = random.gen_range(0..=u32::MAX);
        let (sql, parameters) = match random.gen_range(0..4) {
            0 => (format!("SELECT id, name FROM shop.items WHERE id < ? AND name <> ? /* {mark} */"), 2),
            1 => (format!("INSERT INTO {} (id, note) VALUES (?, ?)", self.table), 2),
            2 => (format!("SELECT {mark} + ?"), 1),
            _ => (format!("UPDATE {} SET note = 'p{mark}' WHERE id = ?", self.table), 1),
        };
        let Some(statement) = self.prepare(sql.as_bytes())? else {
            return Ok(());
        };
        for _ in 0..random.gen_range(1..5) {
            let mut values = vec![Value::Number(random.gen_range(0..500))];
            if parameters == 2 {
                let text = format!("it's \"{}\" 密码", random.gen_range(0..=u32::MAX));
                if random.gen_ratio(1, 6) {
                    self.long_data(statement, 1, text.as_bytes())?;
                    values.push(Value::Sent);
                } else {
                    values.push(Value::Text(text));
                }
            }
            self.execute(statement, &values, sql.as_bytes())?;
            if random.gen_ratio(1, 5) {
                self.simple(command::STMT_RESET, &statement.to_le_bytes())?;
            }
        }
        if random.gen_ratio(4, 5) {
            self.note(What::Command(command::STMT_CLOSE.into()), None).code = None;
            self.client.tell(command::STMT_CLOSE, &statement.to_le_bytes())?;
        }
        Ok(())
    }

    fn prepare(&mut self, sql: &[u8]) -> Result<Option<u32>, Failure> {
        self.note(What::Command(command::STMT_PREPARE.into()), Some(sql));
        match self.client.prepare(sql) {
            Ok(number) => {
                self.answered(Ok(Answer::default()))?;
                Ok(Some(number))
            }
            Err(error) => self.answered(Err(error)).map(|_| None),
        }
    }

    fn long_data(&mut self, statement: u32, parameter: u16, data: &[u8]) -> Result<(), Failure> {
        self.note(What::Command(command::STMT_SEND_LONG_DATA.into()), None).code = None;
        let mut body = statement.to_le_bytes().to_vec();
        body.extend(parameter.to_le_bytes());
        body.extend(data);
        self.client.tell(command::STMT_SEND_LONG_DATA, &body)
    }

    fn execute(&mut self, statement: u32, values: &[Value], sql: &[u8]) -> Result<(), Failure> {
        self.note(What::Command(command::STMT_EXECUTE.into()), Some(sql)).wording = Wording::Values;
        let mut body = statement.to_le_bytes().to_vec();
        // No cursor, one execution, no value is null (there are at most eight), types follow.
        body.extend([0, 1, 0, 0, 0, 0, 1]);
        for value in values {
            body.extend(match value {
                Value::Number(_) => [8, 0],
                Value::Text(_) => [0xfd, 0],
                Value::Sent => [0xfc, 0],
            });
        }
        for value in values {
            match value {
                Value::Number(number) => body.extend(number.to_le_bytes()),
                Value::Text(text) => {
                    // All are shorter than 251 bytes.
                    body.push(u8::try_from(text.len()).unwrap_or_default());
                    body.extend(text.as_bytes());
                }
                Value::Sent => {}
            }
        }
        let answer = self.client.ask(command::STMT_EXECUTE, &body);
        self.answered(answer).map(drop)
    }

    /// Begins the entry of a command, with what is known before it is sent.
    fn note(&mut self, what: What, sql: Option<&[u8]>) -> &mut Entry {
        let entry = Entry { what, sql: sql.map(<[u8]>::to_vec), code: Some(0), ..self.state.clone() };
        self.entries.push(entry);
        let last = self.entries.len() - 1;
        &mut self.entries[last]
    }

    /// Ends it with what the server answered; None where that was an error.
    fn answered(&mut self, answer: Result<Answer, Failure>) -> Result<Option<Answer>, Failure> {
        let Some(entry) = self.entries.last_mut() else {
            return answer.map(Some);
        };
        match answer {
            Ok(answer) => {
                entry.rows_sent = answer.rows.filter(|_| answer.results == 1);
                entry.rows_affected = answer.affected.filter(|_| answer.results == 1);
                Ok(Some(answer))
            }
            Err(Failure::Refused(code)) => {
                entry.code = Some(code.into());
                Ok(None)
            }
            Err(broken) => Err(broken),
        }
    }
}

fn named(database: &str) -> Option<String> {
    Some(database.to_owned()).filter(|name| !name.is_empty())
}

/// `COM_STATISTICS` is answered with plain text, which may begin with any byte.
fn refused(failure: Failure) -> Result<(), Failure> {
    match failure {
        Failure::Refused(_) => Ok(()),
        broken @ Failure::Broken(_) => Err(broken),
    }
}
