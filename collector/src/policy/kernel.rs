//! What of the rules the kernel can decide: a profile for connections of which nothing is known, and one for each sort of
//! connection that the rules tell apart. See [`whence_abi::filter`].

use whence_abi::filter::{self, Profile, becomes};
use whence_model::{Command, EventKind, Principal};

use super::{Action, Policy, Rule};

/// For each rule that asks who a connection belongs to, whether this one is so. Connections with the same answers have
/// the same profile.
pub type Answers = Vec<bool>;

/// Whether a rule matches, by what is known.
enum Match {
    Never,
    Always,
    /// By who the connection belongs to.
    ByConnection,
    /// By what the kernel does not know.
    Unknown,
}

impl Policy {
    /// The rules that the kernel may hold, in their order; a profile names them by their place, from 1.
    pub fn kernel_rules(&self) -> impl Iterator<Item = filter::Rule> {
        let most = usize::try_from(filter::RULES).unwrap_or(0);
        self.rules.iter().take(most).map(|rule| {
            let one_in = if let Action::Sample { one_in } = rule.action { one_in } else { 0 };
            filter::Rule { name: words(&rule.name), one_in }
        })
    }

    /// What a connection answers to the rules that ask about it.
    pub fn answers(&self, principal: &Principal) -> Answers {
        self.rules.iter().filter(|rule| rule.asks_connection()).map(|rule| rule.is_of(principal)).collect()
    }

    /// What becomes of each command of a connection that answers so; None: of one that nothing is known of. Numbers of
    /// rules are from `first` on.
    pub fn profile(&self, answers: Option<&Answers>, first: u8) -> Profile {
        let mut profile = Profile::EMPTY;
        for number in 0..=255 {
            for has_sql in [false, true] {
                let becomes = self.becomes(Command(number), has_sql, answers, first);
                if let Some(place) = profile.places.get_mut(Profile::place(number, has_sql)) {
                    *place = becomes;
                }
            }
        }
        profile
    }

    fn becomes(&self, command: Command, has_sql: bool, answers: Option<&Answers>, first: u8) -> u8 {
        let mut answers = answers.map(|answers| answers.iter());
        for (place, rule) in self.rules.iter().enumerate() {
            let answer = match (&mut answers, rule.asks_connection()) {
                (Some(answers), true) => Some(answers.next().copied().unwrap_or(false)),
                (None, true) => None,
                (_, false) => Some(true),
            };
            match rule.matches_in_kernel(command, has_sql, answer) {
                Match::Never => {}
                Match::ByConnection => return becomes::ASKED,
                Match::Always if rule.action != Action::Keep => {
                    let is_held = place < usize::try_from(filter::RULES).unwrap_or(0);
                    let number = u8::try_from(place).ok().filter(|_| is_held);
                    return number.map_or(becomes::SENT, |number| first + number);
                }
                Match::Always | Match::Unknown => return becomes::SENT,
            }
        }
        becomes::SENT
    }
}

impl Rule {
    fn asks_connection(&self) -> bool {
        !self.accounts.is_empty() || !self.clients.is_empty()
    }

    fn matches_in_kernel(&self, command: Command, has_sql: bool, is_of: Option<bool>) -> Match {
        let may_be = self.is_of_kind(EventKind::Command)
            && (self.commands.is_empty() || self.commands.contains(&command))
            && (self.classes.is_empty() || has_sql);
        match is_of {
            _ if !may_be => Match::Never,
            Some(false) => Match::Never,
            None => Match::ByConnection,
            Some(true) if self.classes.is_empty() && self.databases.is_empty() => Match::Always,
            Some(true) => Match::Unknown,
        }
    }
}

/// A rule's name as the kernel has it.
fn words(name: &str) -> filter::Name {
    let mut words = filter::Name::default();
    for (word, bytes) in words.iter_mut().zip(name.as_bytes().chunks(4)) {
        let mut four = [0; 4];
        four.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        *word = u32::from_ne_bytes(four);
    }
    words
}

/// A rule's name from what the kernel has.
pub fn name(words: &filter::Name) -> String {
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
