//! Reads a file of MariaDB's `server_audit` plugin.
//!
//! A line is `time,server,user,host,connection,query,operation,database,object,code`; the object is SQL in quotes, with
//! escapes, or empty.

use crate::entry::{Entry, What, Wording};
use crate::record::Sessions;

/// The sessions in the file's `bytes`.
pub fn parse(bytes: &[u8]) -> Sessions {
    let mut sessions = Sessions::new();
    // SQL with a raw line feed would be a line that is none; the plugin escapes it.
    for line in bytes.split(|&byte| byte == b'\n') {
        if let Some((id, entry)) = entry(line) {
            sessions.entry(id).or_default().push(entry);
        }
    }
    sessions
}

fn entry(line: &[u8]) -> Option<(u64, Entry)> {
    let mut fields = line.splitn(9, |&byte| byte == b',');
    let _time = fields.next()?;
    let _server = fields.next()?;
    let user = text(fields.next()?);
    let host = text(fields.next()?);
    let id = text(fields.next()?).parse().ok()?;
    let _query = fields.next()?;
    let what = match fields.next()? {
        b"CONNECT" => What::Connect,
        b"FAILED_CONNECT" => What::ConnectFailed,
        b"DISCONNECT" => What::Disconnect,
        b"QUERY" => What::Command(3),
        b"CHANGEUSER" => What::Command(17),
        _ => return None,
    };
    let database = text(fields.next()?);
    let rest = fields.next()?;
    let comma = rest.iter().rposition(|&byte| byte == b',')?;
    let (object, code) = rest.split_at_checked(comma)?;
    let mut entry = Entry::new(what);
    entry.login_user = Some(user);
    entry.client_host = Some(host);
    entry.database = Some(Some(database).filter(|name| !name.is_empty()));
    entry.code = text(code.get(1..)?).parse().ok();
    if what == What::Command(3) {
        entry.sql = Some(unescape(object.strip_prefix(b"'")?.strip_suffix(b"'")?));
        entry.wording = Wording::Masked;
    }
    Some((id, entry))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'b') => bytes.push(8),
            Some(b'f') => bytes.push(12),
            Some(&other) => bytes.push(other),
            None => bytes.push(b'\\'),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let sessions = parse(
            b"20261125 01:38:22,vm,root,localhost,3,9,QUERY,shop,'select \\'a\\nb\\', \\'back\\\\\\\\slash\\'',1146\n\
            20261125 01:38:22,vm,nobody,localhost,5,0,FAILED_CONNECT,,,1045\n",
        );
        let query = &sessions[&3][0];
        assert_eq!(query.sql.as_deref(), Some(&b"select 'a\nb', 'back\\\\slash'"[..]));
        assert_eq!((query.code, &query.database), (Some(1146), &Some(Some("shop".into()))));
        let refused = &sessions[&5][0];
        assert_eq!((refused.what, refused.code), (What::ConnectFailed, Some(1045)));
        assert_eq!(refused.database, Some(None));
    }
}
