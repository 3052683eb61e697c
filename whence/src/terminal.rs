//! The person at a terminal, and the text of strangers on it.

/// Name of the person who runs this program, as the system knows it; empty when it does not.
pub fn user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map_or_else(String::new, |user| user.name)
}

/// The text with everything written out that could steer a terminal, or change the order in which the rest is read.
pub fn printable(text: &str) -> String {
    let escaped = |c: char| if steers(c) { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(escaped).collect()
}

fn steers(c: char) -> bool {
    // The marks, embeddings, overrides and isolates of the bidirectional algorithm, and what shows as nothing.
    let is_invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || is_invisible
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb 密"), "a\\u{1b}[31mb 密");
        assert_eq!(printable("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
    }
}
