//! Reads a `general_log` file of MySQL or MariaDB.
//!
//! A line begins with a time or two tabs, then `ID COMMAND<tab>ARGUMENT`; an argument may have line feeds in it.

use crate::entry::{Entry, What, Wording};
use crate::record::Sessions;

/// Commands by the name that the log gives them.
const COMMANDS: &[(&str, u32)] = &[
    ("Quit", 1),
    ("Init DB", 2),
    ("Query", 3),
    ("Field List", 4),
    ("Create DB", 5),
    ("Drop DB", 6),
    ("Refresh", 7),
    ("Shutdown", 8),
    ("Statistics", 9),
    ("Processlist", 10),
    ("Kill", 12),
    ("Debug", 13),
    ("Ping", 14),
    ("Change user", 17),
    ("Binlog Dump", 18),
    ("Prepare", 22),
    ("Execute", 23),
    ("Long Data", 24),
    ("Close stmt", 25),
    ("Reset stmt", 26),
    ("Set option", 27),
    ("Fetch", 28),
    ("Reset connection", 31),
    ("Reset Connection", 31),
];
const CONNECT: &str = "Connect";

/// The sessions in the file's `bytes`.
pub fn parse(bytes: &[u8]) -> Sessions {
    let mut sessions = Sessions::new();
    let mut open: Option<(u64, &str, Vec<u8>)> = None;
    for line in bytes.split(|&byte| byte == b'\n') {
        if let Some((id, name, argument)) = head(line) {
            if let Some((id, name, argument)) = open.replace((id, name, argument.to_vec())) {
                add(sessions.entry(id).or_default(), name, argument);
            }
        } else if let Some((_, _, argument)) = &mut open {
            argument.push(b'\n');
            argument.extend(line);
        }
    }
    if let Some((id, name, mut argument)) = open {
        // Behind the file's last line feed.
        argument.pop();
        add(sessions.entry(id).or_default(), name, argument);
    }
    sessions
}

/// The connection, the command and the beginning of the argument of a line that begins an entry.
fn head(line: &[u8]) -> Option<(u64, &'static str, &[u8])> {
    let rest = line.strip_prefix(b"\t\t").or_else(|| behind_time(line))?;
    let rest = rest.trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let id = std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
    let rest = rest.get(digits..)?.strip_prefix(b" ")?;
    let mut names = COMMANDS.iter().map(|(name, _)| *name).chain([CONNECT]);
    names.find_map(|name| Some((id, name, rest.strip_prefix(name.as_bytes())?.strip_prefix(b"\t")?)))
}

/// What follows `261125  1:38:22<tab>`, or since MySQL 5.7 `2026-11-25T01:38:22.123456Z<tab>`.
fn behind_time(line: &[u8]) -> Option<&[u8]> {
    let is_time = |time: &[u8]| match time {
        [date @ .., b'Z'] => date.len() == 26 && date.get(10) == Some(&b'T') && date.get(19) == Some(&b'.'),
        date => date.len() == 15 && date.iter().take(6).all(u8::is_ascii_digit),
    };
    let tab = line.iter().take(28).position(|&byte| byte == b'\t')?;
    let (time, rest) = line.split_at_checked(tab)?;
    rest.get(1..).filter(|_| is_time(time))
}

fn add(session: &mut Vec<Entry>, name: &str, argument: Vec<u8>) {
    let number = COMMANDS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let mut entry = Entry::new(number.map_or(What::Connect, What::Command));
    if argument.starts_with(b"Access denied for user") && matches!(name, CONNECT | "Init DB") {
        // Of the login that the line before began to tell of.
        if let [login] = session.as_mut_slice() {
            login.what = What::ConnectFailed;
            login.code = Some(if name == CONNECT { 1045 } else { 1044 });
            return;
        }
        entry.code = Some(1044);
    }
    if matches!(name, CONNECT | "Change user") {
        login(&mut entry, &String::from_utf8_lossy(&argument));
        session.push(entry);
        return;
    }
    if let Some(before) = session.last() {
        entry.login_user.clone_from(&before.login_user);
        entry.client_host.clone_from(&before.client_host);
    }
    if matches!(number, Some(3 | 22 | 23)) {
        entry.sql = Some(argument);
        if number == Some(23) {
            entry.wording = Wording::Values;
        }
    }
    session.push(entry);
}

/// `user@host on database using Socket`; with ` as account` where that has another name than the user.
fn login(entry: &mut Entry, text: &str) {
    let Some((who, rest)) = text.split_once(" on ") else {
        return;
    };
    let (who, account) = who.split_once(" as ").map_or((who, None), |(who, account)| (who, Some(account)));
    let Some((user, host)) = who.rsplit_once('@') else {
        return;
    };
    entry.login_user = Some(user.to_owned());
    entry.account = account.map(str::to_owned);
    entry.client_host = Some(host.to_owned());
    let database = rest.split_once(" using ").map_or(rest, |(database, _)| database);
    entry.database = Some(Some(database.to_owned()).filter(|name| !name.is_empty()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"mariadbd, Version: 10.11. started with:\nTime\t\t    Id Command\tArgument\n\
        261125  1:38:22\t     3 Connect\troot@localhost on shop using Socket\n\
        \t\t     3 Query\tselect 'a\nb\tc', 0x00ff\n\
        \t\t     4 Connect\tnobody@127.0.0.7 on  using TCP/IP\n\
        \t\t     4 Connect\tAccess denied for user 'nobody'@'127.0.0.7' (using password: YES)\n\
        \t\t     3 Init DB\tshop\n\
        \t\t     3 Quit\t\n";

    #[test]
    fn a_log_is_read_into_sessions() {
        let sessions = parse(LOG);
        let what: Vec<_> = sessions[&3].iter().map(|entry| entry.what).collect();
        assert_eq!(what, [What::Connect, What::Command(3), What::Command(2), What::Command(1)]);
        let first = &sessions[&3][0];
        assert_eq!(first.login_user.as_deref(), Some("root"));
        assert_eq!(first.database, Some(Some("shop".into())));
        let query = &sessions[&3][1];
        assert_eq!(query.sql.as_deref(), Some(&b"select 'a\nb\tc', 0x00ff"[..]));
        assert_eq!(
            (query.login_user.as_deref(), query.client_host.as_deref()),
            (Some("root"), Some("localhost"))
        );
    }

    #[test]
    fn a_refusal_belongs_to_the_login_before_it() {
        let refused = &parse(LOG)[&4];
        assert_eq!(refused.len(), 1);
        assert_eq!((refused[0].what, refused[0].code), (What::ConnectFailed, Some(1045)));
        assert_eq!(refused[0].client_host.as_deref(), Some("127.0.0.7"));
    }
}
