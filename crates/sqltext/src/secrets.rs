//! Which tokens of a statement hold a credential. What could be one is taken for one.
//!
//! Two servers may read one text in two ways, by their settings and versions: whether `\'` ends a string, and whether
//! a version comment is code. Where that makes a difference, nothing behind the first word that tells of a credential is
//! trusted: the text is cut there.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use crate::lexer::{Kind, Token};
use crate::{is_any, is_word};

/// A literal or a comment that holds one of these words may hold a statement or a list with a credential.
const TELLING: &[&str] = &["identified", "password", "passwd", "pwd="];
/// Words that are, or hold, the name of something secret: a column, a variable, an option.
const SECRET_NAMES: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "_pwd",
    "secret",
    "token",
    "credential",
    "authentication_string",
    "auth_string",
    "sst_auth",
    "challenge_response",
    "filekey",
    "api_key",
    "access_key",
    "private_key",
    "encryption_key",
    "master_key",
];
/// Functions whose arguments are keys, or what is not to be read.
const KEY_FUNCTIONS: &[&str] = &[
    "password",
    "old_password",
    "aes_encrypt",
    "aes_decrypt",
    "des_encrypt",
    "des_decrypt",
    "encrypt",
    "encode",
    "decode",
    "keyring_key_store",
    "ed25519_password",
    "sha2_password",
    "kdf",
    "md5",
    "sha",
    "sha1",
    "sha2",
];
/// Words behind `IDENTIFIED` that are no secret.
const ACCOUNT_WORDS: &[&str] = &[
    "by",
    "with",
    "via",
    "as",
    "using",
    "password",
    "old_password",
    "random",
    "or",
    "and",
    "replace",
    "retain",
    "current",
    "discard",
    "old",
    "identified",
    "initial",
    "authentication",
    "require",
    "none",
    "ssl",
    "x509",
    "cipher",
    "issuer",
    "subject",
    "account",
    "lock",
    "unlock",
    "expire",
    "default",
    "never",
    "interval",
    "day",
    "history",
    "reuse",
    "optional",
    "grant",
    "option",
    "max_queries_per_hour",
    "max_updates_per_hour",
    "max_connections_per_hour",
    "max_user_connections",
    "max_statement_time",
    "failed_login_attempts",
    "password_lock_time",
    "unbounded",
    "comment",
    "attribute",
    "role",
    "user",
    "add",
    "modify",
    "drop",
    "factor",
    "registration",
    "initiate",
    "finish",
    "unregister",
    "if",
    "not",
    "exists",
    "to",
    "for",
    "mysql_native_password",
    "mysql_old_password",
    "caching_sha2_password",
    "sha256_password",
    "ed25519",
    "unix_socket",
    "auth_socket",
    "pam",
    "gssapi",
    "named_pipe",
    "parsec",
];
/// Words that end the value before them.
const CLAUSES: &[&str] = &[
    "and", "or", "xor", "where", "order", "group", "having", "limit", "from", "set", "union", "join", "on",
    "values", "value", "select", "as",
];

static IS_TELLING: LazyLock<Words> = LazyLock::new(|| Words::of(&[TELLING]));
static IS_SECRET_NAME: LazyLock<Words> = LazyLock::new(|| Words::of(&[SECRET_NAMES]));
/// A text without any of these holds no credential.
static ANY_WORD: LazyLock<Words> =
    LazyLock::new(|| Words::of(&[TELLING, SECRET_NAMES, KEY_FUNCTIONS, &["connection", "://"]]));

/// Looks for words, in one pass, without regard to case.
struct Words(Option<AhoCorasick>);

impl Words {
    fn of(words: &[&[&str]]) -> Self {
        // Fails only for more words than fit into memory.
        Self(AhoCorasick::builder().ascii_case_insensitive(true).build(words.concat()).ok())
    }

    /// The end of the first that is in `bytes`.
    fn end_of_first(&self, bytes: &[u8]) -> Option<usize> {
        let Some(words) = &self.0 else { return Some(0) };
        words.find(bytes).map(|found| found.end())
    }
}

/// What is secret in one text.
pub struct Secrets {
    secret: Vec<bool>,
    /// Byte from which nothing of the text is to be shown.
    pub cut: Option<usize>,
}

impl Secrets {
    pub fn find(sql: &[u8], tokens: &[Token]) -> Self {
        let Some(first_word) = ANY_WORD.end_of_first(sql) else {
            return Self { secret: Vec::new(), cut: None };
        };
        let mut marker = Marker { sql, tokens, secret: vec![false; tokens.len()] };
        for (at, token) in tokens.iter().enumerate() {
            marker.token(at, token);
        }
        // Where it is read otherwise, a word may be code that is in a literal or comment here.
        let is_within = |token: &Token| {
            matches!(token.kind, Kind::String | Kind::Name | Kind::Comment)
                && ANY_WORD.end_of_first(token.bytes(sql)).is_some()
        };
        let holds_any = || marker.secret.contains(&true) || tokens.iter().any(is_within);
        let cut = (is_ambiguous(sql, tokens) && holds_any()).then_some(first_word);
        Self { secret: marker.secret, cut }
    }

    pub fn is_secret(&self, at: usize) -> bool {
        self.secret.get(at).copied().unwrap_or_default()
    }

    /// The tokens that may be shown, and whether each is to be taken for a literal.
    pub fn shown(&self, tokens: &[Token]) -> Vec<Token> {
        let all =
            tokens.iter().enumerate().take_while(|(_, token)| self.cut.is_none_or(|cut| token.end <= cut));
        all.map(|(at, token)| match token.kind {
            Kind::Word | Kind::Name if self.is_secret(at) => Token { kind: Kind::String, ..*token },
            _ => *token,
        })
        .collect()
    }
}

/// Whether another server may divide the text otherwise.
fn is_ambiguous(sql: &[u8], tokens: &[Token]) -> bool {
    let escaped_quote = |pair: &[u8]| matches!(pair, [b'\\', b'\'' | b'"' | b'`']);
    sql.windows(2).any(escaped_quote)
        // A server that passes over the version comment ends it there.
        || tokens.iter().any(|token| token.versioned && contains(token.bytes(sql), b"*/"))
}

pub fn is_telling(bytes: &[u8]) -> bool {
    IS_TELLING.end_of_first(bytes).is_some() || has_url_credentials(bytes)
}

/// `mysql://user:password@host`
fn has_url_credentials(bytes: &[u8]) -> bool {
    let Some(scheme) = bytes.windows(3).position(|window| window == b"://") else { return false };
    let behind = bytes.get(scheme + 3..).unwrap_or_default();
    // The text may end before the `@`.
    let host = behind.iter().position(|byte| *byte == b'@').unwrap_or(behind.len());
    let user = behind.get(..host).unwrap_or_default();
    user.contains(&b':') && (host < behind.len() || !user.contains(&b'/'))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

struct Marker<'a> {
    sql: &'a [u8],
    tokens: &'a [Token],
    secret: Vec<bool>,
}

impl Marker<'_> {
    fn token(&mut self, at: usize, token: &Token) {
        match token.kind {
            Kind::String | Kind::Comment if is_telling(token.bytes(self.sql)) => {
                self.set(at);
                // Where `"` quotes names.
                if token.kind == Kind::String {
                    self.value(at);
                }
            }
            Kind::Word | Kind::Name => self.word(at, token),
            _ => {}
        }
    }

    fn word(&mut self, at: usize, token: &Token) {
        let next = self.code_after(at);
        if is_word(self.sql, token, "identified") {
            self.account(at + 1);
        } else if is_any(self.sql, token, KEY_FUNCTIONS) && next.is_some_and(|next| self.is(next, b'(')) {
            self.arguments(at + 1);
        } else if is_word(self.sql, token, "password") && self.is_set_password(at) {
            self.account(at + 1);
        } else if is_secret_name(token.bytes(self.sql)) {
            if next.is_some_and(|next| self.is(next, b',') || self.is(next, b')')) && self.is_in_insert(at) {
                self.values_behind(at);
            }
            self.value(at);
        } else if is_word(self.sql, token, "connection") {
            // `CREATE TABLE … CONNECTION = 'mysql://user:password@host/…'`
            self.value(at);
        }
    }

    /// Index of the token behind `at` that is no comment.
    fn code_after(&self, at: usize) -> Option<usize> {
        let rest = self.tokens.get(at + 1..)?;
        rest.iter().position(|token| token.kind != Kind::Comment).map(|position| at + 1 + position)
    }

    fn code_before(&self, at: usize) -> Option<usize> {
        self.tokens.get(..at)?.iter().rposition(|token| token.kind != Kind::Comment)
    }

    fn is(&self, at: usize, symbol: u8) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Symbol(symbol))
    }

    fn word_is(&self, at: Option<usize>, word: &str) -> bool {
        at.and_then(|at| self.tokens.get(at)).is_some_and(|token| is_word(self.sql, token, word))
    }

    fn is_behind(&self, at: usize, word: &str) -> bool {
        self.word_is(self.code_before(at), word)
    }

    fn set(&mut self, at: usize) {
        if let Some(secret) = self.secret.get_mut(at) {
            *secret = true;
        }
    }

    fn is_value(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| match token.kind {
            Kind::String => true,
            Kind::Number => matches!(token.bytes(self.sql), [b'0', b'x' | b'X' | b'b' | b'B', ..]),
            _ => false,
        })
    }

    /// Behind `IDENTIFIED`: all that is not known to be no secret, up to the end of the statement. The next accounts stand
    /// behind commas.
    fn account(&mut self, from: usize) {
        for at in from..self.tokens.len() {
            let Some(token) = self.tokens.get(at) else { return };
            let before = self.code_before(at);
            // `SET PASSWORD FOR 'name'@'host'`, and further accounts behind commas.
            let begins_account =
                before.is_some_and(|before| self.is(before, b',')) || self.is_behind(at, "for");
            let next = self.code_after(at);
            let is_user = begins_account
                && next.is_some_and(|next| {
                    self.is(next, b'@') || self.is(next, b'=') || self.word_is(Some(next), "identified")
                });
            let is_host = before.filter(|before| self.is(*before, b'@')).is_some_and(|before| {
                self.code_before(before).is_some_and(|name| self.secret.get(name) == Some(&false))
            });
            let is_plugin =
                token.kind == Kind::Word && (self.is_behind(at, "with") || self.is_behind(at, "via"));
            match token.kind {
                Kind::Symbol(b';') => return,
                Kind::Symbol(_) | Kind::Placeholder => {}
                _ if is_host || is_user || is_plugin => {}
                Kind::Word if is_any(self.sql, token, ACCOUNT_WORDS) => {}
                Kind::Number if self.is_count(at) => {}
                Kind::Comment | Kind::Word | Kind::Name | Kind::String | Kind::Number => self.set(at),
            }
        }
    }

    /// `INTERVAL 90 DAY`, `MAX_USER_CONNECTIONS 5`: a number behind a word that is none of those before a secret.
    fn is_count(&self, at: usize) -> bool {
        let value = ["by", "as", "using", "replace", "password"];
        let before = self.code_before(at).and_then(|before| self.tokens.get(before));
        before.is_some_and(|before| before.kind == Kind::Word && !is_any(self.sql, before, &value))
            && !self.is_value(at)
    }

    /// `SET PASSWORD [FOR account] = 'x' [REPLACE 'y']`, not `UPDATE … SET password = 'x'`.
    fn is_set_password(&self, at: usize) -> bool {
        let set = self.code_before(at).filter(|set| self.word_is(Some(*set), "set"));
        let before = set.map(|set| self.code_before(set));
        before.is_some_and(|before| before.is_none_or(|before| self.is(before, b';')))
    }

    /// Every literal up to the parenthesis that closes the next one to open.
    fn arguments(&mut self, from: usize) {
        let mut depth = 0_usize;
        for at in from..self.tokens.len() {
            match self.tokens.get(at).map(|token| token.kind) {
                Some(Kind::Symbol(b'(')) => depth += 1,
                Some(Kind::Symbol(b')')) => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return;
                    }
                }
                Some(Kind::String | Kind::Number | Kind::Comment) => self.set(at),
                _ => {}
            }
        }
    }

    /// What is given to the name at `at`: `PASSWORD 'x'`, `password IN ('x', 'y')`, `MASTER_PASSWORD = _utf8'x'`.
    fn value(&mut self, at: usize) {
        let mut depth = 0_usize;
        for at in at + 1..self.tokens.len() {
            let Some(token) = self.tokens.get(at) else { return };
            match token.kind {
                Kind::Symbol(b'(') => depth += 1,
                Kind::Symbol(b';') => return,
                Kind::Symbol(b')' | b',') if depth == 0 => return,
                Kind::Symbol(b')') => depth -= 1,
                Kind::Word if depth == 0 && is_any(self.sql, token, CLAUSES) => return,
                Kind::Comment => self.set(at),
                _ if self.is_value(at) => self.set(at),
                _ => {}
            }
        }
    }

    /// Whether the statement that `at` is in inserts rows, and is not at them yet.
    fn is_in_insert(&self, at: usize) -> bool {
        let before = self.tokens.get(..at).unwrap_or_default();
        let start =
            before.iter().rposition(|token| token.kind == Kind::Symbol(b';')).map_or(0, |end| end + 1);
        let statement = before.get(start..).unwrap_or_default();
        let verb = statement.iter().find(|token| token.kind != Kind::Comment);
        verb.is_some_and(|verb| is_any(self.sql, verb, &["insert", "replace"]))
            && !statement.iter().any(|token| is_any(self.sql, token, &["values", "value", "select"]))
    }

    /// Every value up to the end of the statement.
    fn values_behind(&mut self, from: usize) {
        for at in from..self.tokens.len() {
            if self.is(at, b';') {
                return;
            }
            if self.is_value(at) {
                self.set(at);
            }
        }
    }
}

fn is_secret_name(bytes: &[u8]) -> bool {
    IS_SECRET_NAME.end_of_first(bytes).is_some()
}
