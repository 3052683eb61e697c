use std::net::IpAddr;

use proptest::prelude::*;
use whence_model::Transport;

use super::pattern::{AccountPattern, ClientPattern, Pattern};
use super::*;

fn rule(text: &str) -> Rule {
    text.parse().unwrap()
}

fn policy(rules: &[&str]) -> Policy {
    Policy::new(rules.iter().map(|text| rule(text)).collect(), SqlMode::Full, 100).unwrap()
}

fn principal(user: &str, host: &str, ip: Option<&str>) -> Principal {
    Principal {
        user: Some(user.into()),
        client_host: Some(host.into()),
        client_ip: ip.map(|ip| ip.parse().unwrap()),
        transport: Some(if ip.is_some() { Transport::Tcp } else { Transport::Unix }),
        ..Principal::default()
    }
}

fn ping(principal: &Principal) -> Facts<'_> {
    Facts {
        kind: EventKind::Command,
        principal,
        database: Some("shop"),
        command: Some(Command(14)),
        class: None,
    }
}

fn is_filtered(policy: &Policy, facts: &Facts<'_>) -> bool {
    matches!(policy.decide(facts, None), Decision::Filter { .. })
}

#[test]
fn every_matcher_must_match_by_one_of_its_items() {
    let rules = policy(&[
        r#"{ name = "a", account = ["app@10.%", "'batch'"], client = ["10.0.0.0/8", "unix"], database = "shop",
            command = ["Ping", "Statistics"], action = "skip" }"#
            .replace('\n', " ")
            .as_str(),
    ]);
    let app = principal("app", "web1", Some("10.1.2.3"));
    assert!(is_filtered(&rules, &ping(&app)));
    assert!(is_filtered(&rules, &Facts { command: Some(Command(9)), ..ping(&app) }));
    assert!(!is_filtered(&rules, &Facts { command: Some(Command::QUERY), ..ping(&app) }));
    assert!(!is_filtered(&rules, &Facts { database: Some("Shop"), ..ping(&app) }));
    assert!(!is_filtered(&rules, &Facts { database: None, ..ping(&app) }));
    assert!(!is_filtered(&rules, &Facts { kind: EventKind::Disconnect, command: None, ..ping(&app) }));
    assert!(!is_filtered(&rules, &ping(&principal("app", "web1", Some("11.1.2.3")))));
    assert!(is_filtered(&rules, &ping(&principal("batch", "localhost", None))));
    assert!(!is_filtered(&rules, &ping(&principal("Batch", "localhost", None))));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = policy(&[
        r#"{ name = "keep ddl", class = "ddl" }"#,
        r#"{ name = "quiet", account = "app", action = "skip" }"#,
    ]);
    let app = principal("app", "localhost", None);
    let ddl = Facts { class: Some(StatementClass::Ddl), command: Some(Command::QUERY), ..ping(&app) };
    assert!(!is_filtered(&rules, &ddl));
    let expected = Decision::Filter { rule: "quiet".into() };
    assert_eq!(rules.decide(&Facts { class: Some(StatementClass::Read), ..ddl }, None), expected);
}

#[test]
fn a_failed_login_is_left_out_only_by_a_rule_that_names_it() {
    let nobody =
        Principal { login_user: Some("app".into()), user: None, ..principal("", "h", Some("10.0.0.1")) };
    let failed = Facts { kind: EventKind::ConnectFailed, command: None, ..ping(&nobody) };
    for text in [
        r#"{ name = "x", account = "app", action = "skip" }"#,
        r#"{ name = "x", account = "%", kind = ["connect", "connect_failed"], action = "skip" }"#,
        r#"{ name = "x", client = "10.0.0.1", action = "skip" }"#,
        r#"{ name = "x", action = "skip" }"#,
    ] {
        assert!(!is_filtered(&policy(&[text]), &failed), "{text}");
    }
    let named = r#"{ name = "x", client = "10.0.0.1", kind = "connect_failed", action = "skip" }"#;
    assert!(is_filtered(&policy(&[named]), &failed));
}

#[test]
fn a_sample_is_one_of_so_many_and_marked() {
    let rules =
        policy(&[r#"{ name = "s", command = "Ping", action = "sample", one_in = 10, sql = "none" }"#]);
    let app = principal("app", "localhost", None);
    let decisions: Vec<_> = (0..100_000).map(|_| rules.decide(&ping(&app), None)).collect();
    let kept = decisions.iter().filter(|decision| matches!(decision, Decision::Keep { .. })).count();
    // Six standard deviations.
    assert!((9_430..=10_570).contains(&kept), "{kept}");
    let marked = Decision::Keep { text: TextPolicy::new(SqlMode::None, 100), sampled_one_in: Some(10) };
    assert!(decisions.iter().all(|d| *d == marked || *d == Decision::Filter { rule: "s".into() }));
    // What the kernel has chosen is not drawn for again.
    assert_eq!(rules.decide(&ping(&app), Some(10)), marked);
}

#[test]
fn text_is_kept_by_account() {
    let rules = policy(&[r#"{ name = "app", account = "app", sql = "literals-masked" }"#]);
    let text = |user| match rules.decide(&ping(&principal(user, "localhost", None)), None) {
        Decision::Keep { text, sampled_one_in: None } => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(text("app").mode, Mode::LiteralsMasked);
    assert_eq!((text("else").mode, text("else").max_bytes), (Mode::Full, 100));
    let message = |user| text(user).error_message(b"Duplicate entry 'Li' for key 'x'", 32).unwrap().text;
    assert_eq!(
        (message("app").as_str(), message("else").as_str()),
        ("Duplicate entry '***'", "Duplicate entry 'Li' for key 'x'")
    );
}

#[test]
fn what_is_wrong_is_named_with_what_would_be_right() {
    for (text, expected) in [
        ("7", "a rule needs a `name`"),
        ("{", "a rule is a TOML table such as { name = \"pings\""),
        ("{ action = 'skip' }", "a rule needs a `name`"),
        (
            "{ name = 'x', acount = 'a' }",
            "rule \"x\": unknown key `acount`; known here: name, account, client",
        ),
        ("{ name = 'x', command = 'Pong' }", "`command` does not know \"Pong\"; known: Sleep, Quit"),
        ("{ name = 'x', command = 'ping' }", "`command` does not know \"ping\""),
        ("{ name = 'x', command = 3 }", "`command` must be a text or a list of texts"),
        ("{ name = 'x', command = [] }", "`command` must not be empty"),
        ("{ name = 'x', class = 'select' }", "known: read, write, ddl"),
        ("{ name = 'x', kind = 'gap' }", "known: connect, connect_failed, disconnect, change_user, command"),
        ("{ name = 'x', client = '10.0.0.1/8' }", "the network is 10.0.0.0/8"),
        ("{ name = 'x', client = '10.0.0' }", "`client` \"10.0.0\" is no address such as"),
        ("{ name = 'x', client = '::ffff:10.0.0.0/104' }", "write it as IPv4"),
        ("{ name = 'x', action = 'drop' }", "known: keep, skip, sample"),
        ("{ name = 'x', action = 'sample' }", "needs `one_in = N`"),
        ("{ name = 'x', action = 'sample', one_in = 1 }", "a whole number from 2"),
        ("{ name = 'x', action = 'skip', one_in = 2 }", "`one_in` belongs to"),
        ("{ name = 'x', action = 'skip', sql = 'none' }", "keeps nothing"),
        ("{ name = 'x', sql = 'masked' }", "known: full, literals-masked, fingerprint, none"),
        ("{ name = 'x', kind = 'connect', command = 'Ping' }", "have no `command` and no `class`"),
        ("{ name = 'x', kind = 'connect_failed', account = 'a' }", "is not of any `account`"),
    ] {
        let error = text.parse::<Rule>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let two = vec![rule("{ name = 'x', command = 'Ping' }"), rule("{ name = 'x', command = 'Quit' }")];
    assert!(Policy::new(two, SqlMode::Full, 1).unwrap_err().to_string().starts_with("two rules are called"));
    let behind = vec![rule("{ name = 'x', sql = 'none' }"), rule("{ name = 'y', command = 'Quit' }")];
    assert!(
        Policy::new(behind, SqlMode::Full, 1)
            .unwrap_err()
            .to_string()
            .contains("\"y\" behind it never would")
    );
}

#[test]
fn rules_are_told_in_words() {
    let rules = policy(&[
        "{ name = 'pings', account = 'mon@10.%', client = ['10.0.0.7', 'unix'], command = 'Ping', action = 'skip' }",
        "{ name = 'batch', class = 'read', action = 'sample', one_in = 10, sql = 'fingerprint' }",
    ]);
    let expected = "rules, of which the first that matches decides:\n  \
        1. pings: command Ping, account mon@10.%, client 10.0.0.7 or unix: left out and counted\n  \
        2. batch: class read: one in 10 kept and marked, the others left out and counted, \
        SQL without text, by fingerprint, class and tables only\n\
        every other event is kept, SQL text in full but for credentials, at most 100 bytes of it";
    assert_eq!(rules.to_string(), expected);
    assert!(Policy::default().to_string().starts_with("every event is kept"));
}

#[test]
fn wildcards_are_those_of_mysql() {
    for (pattern, text, expected) in [
        ("app", "app", true),
        ("app", "App", false),
        ("app", "apps", false),
        ("a_p", "aäp", true),
        ("a\\_p", "a_p", true),
        ("a\\_p", "axp", false),
        ("10.%", "10.1.2.3", true),
        ("10.%", "110.1", false),
        ("%a%b%", "xxaxxbxx", true),
        ("%ab", "aab", true),
        ("", "", true),
        ("", "a", false),
        ("%", "", true),
    ] {
        assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
    }
    let account = AccountPattern::new("a@b@DB_.example.%");
    assert!(account.matches(&principal("a@b", "db1.Example.com", None)));
    assert!(!account.matches(&principal("a", "db1.example.com", None)));
    assert!(
        AccountPattern::new("'app'@'%'")
            .matches(&Principal { user: Some("app".into()), ..Principal::default() })
    );
    assert!(AccountPattern::new("@localhost").matches(&principal("", "localhost", None)));
}

/// What a pattern means, as a regular definition: slow, and plain to see.
fn is_like(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|skipped| is_like(rest, &text[skipped..])),
        ['_', rest @ ..] => !text.is_empty() && is_like(rest, &text[1..]),
        ['\\', c, rest @ ..] | [c, rest @ ..] => text.first() == Some(c) && is_like(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn a_pattern_matches_what_its_definition_says(pattern in "[ab%_\\\\]{0,8}", text in "[ab_%]{0,10}") {
        let pieces: Vec<char> = pattern.chars().collect();
        let characters: Vec<char> = text.chars().collect();
        prop_assert_eq!(Pattern::new(&pattern).matches(&text), is_like(&pieces, &characters));
    }

    #[test]
    fn a_network_holds_the_addresses_that_share_its_bits(net: u32, prefix in 0_u8..=32, client: u32) {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let text = format!("{}/{prefix}", std::net::Ipv4Addr::from(net & mask));
        let pattern: ClientPattern = text.parse().unwrap();
        // Half of them near enough to be in it.
        for address in [client, (net & mask) | (client & !mask)] {
            let ip = IpAddr::from(address.to_be_bytes());
            let principal = Principal { client_ip: Some(ip), ..Principal::default() };
            prop_assert_eq!(pattern.matches(&principal), address & mask == net & mask);
        }
    }

    #[test]
    fn a_network_of_ipv6_does_too(net: u128, prefix in 1_u8..=128, client: u128) {
        let mask = u128::MAX << (128 - u32::from(prefix));
        prop_assume!(std::net::Ipv6Addr::from(net & mask).to_ipv4_mapped().is_none());
        let pattern: ClientPattern = format!("{}/{prefix}", std::net::Ipv6Addr::from(net & mask)).parse().unwrap();
        for address in [client, (net & mask) | (client & !mask)] {
            let ip = IpAddr::from(address.to_be_bytes());
            let principal = Principal { client_ip: Some(ip), ..Principal::default() };
            let is_v4 = ip.to_canonical() != ip;
            prop_assert_eq!(pattern.matches(&principal), address & mask == net & mask && !is_v4);
        }
    }

    #[test]
    fn any_text_is_a_rule_or_a_clear_error(text in ".{0,40}") {
        if let Err(error) = text.parse::<Rule>() {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

mod in_the_kernel {
    use whence_abi::filter::{Profile, becomes};

    use super::*;

    const QUERY: u32 = 3;
    const PING: u32 = 14;

    fn rules() -> Policy {
        policy(&[
            "{ name = 'ddl stays', class = 'ddl' }",
            "{ name = 'monitor', account = 'mon', command = ['Ping', 'Query'], action = 'skip' }",
            "{ name = 'resets', command = 'Reset_connection', action = 'sample', one_in = 5 }",
            "{ name = 'shop', database = 'shop', command = 'Statistics', action = 'skip' }",
            "{ name = 'logins', kind = 'connect', action = 'skip' }",
        ])
    }

    fn at(profile: &Profile, command: u32, has_sql: bool) -> u8 {
        profile.places[Profile::place(command, has_sql)]
    }

    #[test]
    fn what_hangs_on_the_command_alone_is_decided_and_the_rest_is_not() {
        let profile = rules().profile(None, 1);
        assert_eq!(at(&profile, 31, false), 3);
        assert_eq!(at(&profile, PING, false), becomes::ASKED);
        assert_eq!(at(&profile, QUERY, false), becomes::ASKED);
        // Its class may be that of the first rule.
        assert_eq!(at(&profile, QUERY, true), becomes::SENT);
        assert_eq!(at(&profile, 9, false), becomes::SENT, "by database");
        assert_eq!(at(&profile, 1, false), becomes::SENT);
        assert_eq!(rules().kernel_rules().map(|rule| rule.one_in).collect::<Vec<_>>(), [0, 0, 5, 0, 0]);
    }

    #[test]
    fn a_connection_is_decided_by_its_answers() {
        let rules = rules();
        let answers = |user| rules.answers(&principal(user, "localhost", None));
        assert_eq!((answers("mon"), answers("app")), (vec![true], vec![false]));
        let monitor = rules.profile(Some(&answers("mon")), 128);
        assert_eq!((at(&monitor, PING, false), at(&monitor, 31, false)), (129, 130));
        let other = rules.profile(Some(&answers("app")), 128);
        assert_eq!((at(&other, PING, false), at(&other, 31, false)), (becomes::SENT, 130));
    }

    #[test]
    fn names_come_back_as_they_were() {
        for name in ["p", "pings", "вход", &"x".repeat(60)] {
            let rules = policy(&[&format!("{{ name = '{name}', command = 'Ping', action = 'skip' }}")]);
            assert_eq!(kernel::name(&rules.kernel_rules().next().unwrap().name), name);
        }
    }

    proptest! {
        /// Whatever the kernel decides, the collector would have decided too.
        #[test]
        fn kernel_and_collector_agree(
            command in 0_u32..40, has_sql: bool, user in "mon|app", database in "shop|other", ddl: bool,
        ) {
            let rules = rules();
            let principal = principal(&user, "localhost", None);
            let profile = rules.profile(Some(&rules.answers(&principal)), 1);
            let class = if ddl { StatementClass::Ddl } else { StatementClass::Read };
            let facts = Facts {
                kind: EventKind::Command,
                principal: &principal,
                database: Some(&database),
                command: Some(Command(command)),
                class: has_sql.then_some(class),
            };
            let by_kernel = at(&profile, command, has_sql);
            let first = rules.rules.iter().position(|rule| rule.matches(&facts));
            if by_kernel != becomes::SENT {
                prop_assert_eq!(first, Some(usize::from(by_kernel) - 1));
            }
        }
    }
}
