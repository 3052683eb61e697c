//! Splits SQL into tokens. Total: any bytes give some tokens, each within the text and behind the one before.
//!
//! Comments are tokens of their own, but version comments (`/*!50000 … */`, `/*M! … */`) are code, as they are for
//! the server: nothing can hide in them.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An unquoted word: keyword, name, number-like name, `@variable`.
    Word,
    /// A name in backquotes.
    Name,
    /// A string, also `x'…'`, `b'…'`, `n'…'`.
    String,
    /// A number, also `0x…`.
    Number,
    /// `?`
    Placeholder,
    /// One byte of anything else.
    Symbol(u8),
    Comment,
}

/// A piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    /// Whether it stands in a version comment, which a server of another version passes over.
    pub versioned: bool,
    /// How many version comments began before it: tells one from the next.
    pub comment: u32,
}

impl Token {
    pub fn bytes<'a>(&self, sql: &'a [u8]) -> &'a [u8] {
        sql.get(self.start..self.end).unwrap_or_default()
    }
}

/// All tokens of `sql`.
pub fn tokens(sql: &[u8]) -> Vec<Token> {
    let mut lexer = Lexer { sql, at: 0, version_comments: 0, comments: 0 };
    let mut tokens = Vec::with_capacity(sql.len() / 5 + 4);
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    tokens
}

struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    /// How many version comments are open.
    version_comments: u32,
    /// How many have been opened.
    comments: u32,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.sql.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn next(&mut self) -> Option<Token> {
        loop {
            let (start, versioned) = (self.at, self.version_comments > 0);
            let first = *self.sql.get(start)?;
            let kind = match first {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0 => {
                    self.at += 1;
                    continue;
                }
                b'/' if self.peek(1) == b'*' => {
                    if self.opens_version_comment() {
                        continue;
                    }
                    self.skip_past(b"*/", 2);
                    Kind::Comment
                }
                b'*' if self.version_comments > 0 && self.peek(1) == b'/' => {
                    self.version_comments -= 1;
                    self.at += 2;
                    continue;
                }
                b'#' => self.line_comment(),
                // Behind it blank or control, or the end, for which peeking gives 0.
                b'-' if self.peek(1) == b'-' && matches!(self.peek(2), 0..=b' ' | 0x7f) => {
                    self.line_comment()
                }
                b'\'' | b'"' => self.quoted(first, 0, Kind::String),
                b'`' => self.quoted(first, 0, Kind::Name),
                b'x' | b'X' | b'b' | b'B' | b'n' | b'N' if self.peek(1) == b'\'' => {
                    self.quoted(b'\'', 1, Kind::String)
                }
                b'?' => {
                    self.at += 1;
                    Kind::Placeholder
                }
                b'0'..=b'9' => self.number(),
                b'.' if self.peek(1).is_ascii_digit() && !self.follows_name() => self.number(),
                _ if is_word_byte(first) => {
                    self.skip_word();
                    Kind::Word
                }
                _ => {
                    self.at += 1;
                    Kind::Symbol(first)
                }
            };
            return Some(Token { kind, start, end: self.at, versioned, comment: self.comments });
        }
    }

    /// Steps into `/*!50000` or `/*M!100100`.
    fn opens_version_comment(&mut self) -> bool {
        let head = match (self.peek(2), self.peek(3)) {
            (b'!', _) => 3,
            (b'M' | b'm', b'!') => 4,
            _ => return false,
        };
        self.at += head;
        // Five or six digits are the version; more would be part of the code.
        let digits = (0..6).take_while(|ahead| self.peek(*ahead).is_ascii_digit()).count();
        self.at += if digits >= 5 { digits } else { 0 };
        self.version_comments += 1;
        self.comments = self.comments.wrapping_add(1);
        true
    }

    fn line_comment(&mut self) -> Kind {
        self.skip_past(b"\n", 0);
        Kind::Comment
    }

    /// Moves behind the next `end`, looking from `from` bytes ahead; to the end of the text when there is none.
    fn skip_past(&mut self, end: &[u8], from: usize) {
        let rest = self.sql.get(self.at + from..).unwrap_or_default();
        let found = rest.windows(end.len()).position(|window| window == end);
        self.at = found.map_or(self.sql.len(), |position| self.at + from + position + end.len());
    }

    /// A text in quotes; a doubled quote and, but in names, a backslash escape. To the end when it is cut.
    fn quoted(&mut self, quote: u8, prefix: usize, kind: Kind) -> Kind {
        self.at += prefix + 1;
        while let Some(&byte) = self.sql.get(self.at) {
            self.at += 1;
            if byte == b'\\' && kind == Kind::String {
                self.at = (self.at + 1).min(self.sql.len());
            } else if byte == quote {
                if self.peek(0) != quote {
                    break;
                }
                self.at += 1;
            }
        }
        kind
    }

    /// Digits, and the word that names beginning with digits are (`1abc`).
    fn number(&mut self) -> Kind {
        let start = self.at;
        while self.peek(0).is_ascii_digit() || (self.peek(0) == b'.' && self.peek(1) != b'.') {
            self.at += 1;
        }
        let exponent = matches!(self.peek(0), b'e' | b'E');
        let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
        if exponent && self.peek(1 + sign).is_ascii_digit() {
            self.at += 1 + sign;
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
        }
        let digits_end = self.at;
        self.skip_word();
        let text = self.sql.get(start..self.at).unwrap_or_default();
        let is_radix = matches!(text, [b'0', b'x' | b'X' | b'b' | b'B', ..]);
        if self.at == digits_end || is_radix { Kind::Number } else { Kind::Word }
    }

    /// In `a.1b` the `.1` belongs to a name.
    fn follows_name(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|before| self.sql.get(before));
        before.is_some_and(|byte| is_word_byte(*byte) || *byte == b'`')
    }

    fn skip_word(&mut self) {
        while self.at < self.sql.len() && is_word_byte(self.peek(0)) {
            self.at += 1;
        }
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}
