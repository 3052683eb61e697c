//! What a rule can ask of an account and of a client.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use whence_model::{Principal, Transport};

/// Text with `MySQL`'s wildcards: `%` stands for any characters, `_` for one, and `\` makes the next one stand for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Just(char),
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            pieces.push(match c {
                '%' => Piece::Any,
                '_' => Piece::One,
                '\\' => Piece::Just(characters.next().unwrap_or('\\')),
                other => Piece::Just(other),
            });
        }
        Self(pieces)
    }

    fn is_any(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|piece| *piece == Piece::Any)
    }

    /// Whether all of `text` is as the pattern says.
    pub fn matches(&self, text: &str) -> bool {
        let Some(&first) = self.0.first() else { return text.is_empty() };
        // Most names differ in their first letter.
        if let (Piece::Just(wanted), Some(found)) = (first, text.chars().next())
            && wanted != found
        {
            return false;
        }
        let text: Vec<char> = text.chars().collect();
        let (mut piece, mut at) = (0, 0);
        // The last `%`, and how much it stands for so far.
        let mut any: Option<(usize, usize)> = None;
        while at < text.len() {
            let fits = match self.0.get(piece) {
                Some(Piece::Any) => {
                    any = Some((piece, at));
                    piece += 1;
                    continue;
                }
                Some(Piece::One) => true,
                Some(Piece::Just(c)) => text.get(at) == Some(c),
                None => false,
            };
            if fits {
                piece += 1;
                at += 1;
            } else if let Some((of, until)) = any {
                any = Some((of, until + 1));
                piece = of + 1;
                at = until + 1;
            } else {
                return false;
            }
        }
        self.0.get(piece..).unwrap_or_default().iter().all(|piece| *piece == Piece::Any)
    }
}

/// `user@host`, each with wildcards. Without a host it is `%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountPattern {
    text: String,
    user: Pattern,
    /// In lower case, as hosts are compared.
    host: Pattern,
}

impl AccountPattern {
    pub fn new(text: &str) -> Self {
        // A user's name may hold an `@`, a host's may not.
        let (user, host) = text.rsplit_once('@').unwrap_or((text, "%"));
        let (user, host) = (unquoted(user), unquoted(host));
        Self { text: text.into(), user: Pattern::new(user), host: Pattern::new(&host.to_lowercase()) }
    }

    /// Only an account that applied is one: whoever fails to log in has none, whatever name was tried.
    pub fn matches(&self, principal: &Principal) -> bool {
        let Some(user) = &principal.user else { return false };
        let is_host = |host: &str| self.host.matches(&host.to_lowercase());
        self.user.matches(user)
            && (self.host.is_any()
                || principal.client_host.as_deref().is_some_and(is_host)
                || principal.client_ip.is_some_and(|ip| is_host(&ip.to_string())))
    }
}

/// `'app'` and `` `app` `` as `app`: people write accounts as SQL has them.
fn unquoted(text: &str) -> &str {
    let inside = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inside('\'').or_else(|| inside('`')).unwrap_or(text)
}

impl fmt::Display for AccountPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where a client comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientPattern {
    Net(IpNet),
    /// Over the server's unix socket.
    Unix,
}

impl ClientPattern {
    pub fn matches(&self, principal: &Principal) -> bool {
        match self {
            Self::Net(net) => principal.client_ip.is_some_and(|ip| net.contains(&ip.to_canonical())),
            Self::Unix => principal.transport == Some(Transport::Unix),
        }
    }
}

/// The text is no [`ClientPattern`]; says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error("is no address such as 10.0.0.7, no network such as 10.0.0.0/8 or fd00::/8, and not \"unix\"")]
    Unknown,
    #[error("has bits beyond its prefix; the network is {net}")]
    BitsBeyond { net: IpNet },
    #[error("is an IPv4 network mapped into IPv6; write it as IPv4")]
    Mapped,
}

impl FromStr for ClientPattern {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Net(address.to_canonical().into()));
        }
        let net: IpNet = text.parse().map_err(|_| ClientError::Unknown)?;
        if matches!(net, IpNet::V6(net) if net.prefix_len() >= 96 && net.addr().to_ipv4_mapped().is_some()) {
            return Err(ClientError::Mapped);
        }
        if net.addr() != net.network() {
            return Err(ClientError::BitsBeyond { net: net.trunc() });
        }
        Ok(Self::Net(net))
    }
}

impl fmt::Display for ClientPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}
