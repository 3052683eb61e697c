//! A password at any place of any statement that holds one does not come out, in whatever way it is quoted.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Statements with a place for a password, and the words behind it.
const FORMS: &[(&str, &str)] = &[
    ("CREATE USER u IDENTIFIED BY ", ""),
    ("CREATE USER IF NOT EXISTS 'u'@'h' IDENTIFIED BY ", " REQUIRE SSL"),
    ("CREATE USER a IDENTIFIED BY 'other', 'b'@'%' IDENTIFIED BY ", ", c IDENTIFIED BY 'third'"),
    ("CREATE USER u IDENTIFIED BY PASSWORD ", ""),
    ("CREATE USER u IDENTIFIED WITH mysql_native_password BY ", " PASSWORD EXPIRE INTERVAL 90 DAY"),
    ("CREATE USER u IDENTIFIED WITH caching_sha2_password AS ", ""),
    ("CREATE USER u IDENTIFIED VIA ed25519 USING PASSWORD(", ")"),
    ("CREATE USER u IDENTIFIED VIA unix_socket OR mysql_native_password USING ", ""),
    ("CREATE USER u IDENTIFIED BY 'first' AND IDENTIFIED BY ", " AND IDENTIFIED WITH p"),
    ("ALTER USER u IDENTIFIED BY 'new' REPLACE ", " RETAIN CURRENT PASSWORD"),
    ("ALTER USER USER() IDENTIFIED BY ", ""),
    ("ALTER USER u ADD 2 FACTOR IDENTIFIED WITH p BY ", ""),
    ("GRANT ALL ON *.* TO 'u'@'h' IDENTIFIED BY ", " WITH GRANT OPTION"),
    ("SET PASSWORD = ", ""),
    ("SET PASSWORD = ", " REPLACE 'old'"),
    ("SET PASSWORD = 'new' REPLACE ", ""),
    ("SET PASSWORD FOR 'u'@'h' = ", " RETAIN CURRENT PASSWORD"),
    ("SET PASSWORD FOR u = PASSWORD(", ")"),
    ("SET PASSWORD FOR u@h = OLD_PASSWORD(", ")"),
    ("SELECT 1; SET PASSWORD = ", "; SELECT 2"),
    ("CHANGE MASTER TO MASTER_HOST = 'h', MASTER_PASSWORD = ", ", MASTER_PORT = 3306"),
    ("CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD=", ", SOURCE_USER='u'"),
    ("START REPLICA USER = 'u' PASSWORD = ", " DEFAULT_AUTH = 'a'"),
    ("START GROUP_REPLICATION USER='u', PASSWORD=", ""),
    ("CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD ", ", HOST 'h')"),
    ("ALTER SERVER s OPTIONS (PASSWORD ", ")"),
    ("CLONE INSTANCE FROM 'u'@'h':3306 IDENTIFIED BY ", " REQUIRE NO SSL"),
    ("SELECT PASSWORD(", ")"),
    ("SELECT OLD_PASSWORD (", ")"),
    ("SELECT ENCRYPT(", ", 'salt')"),
    ("INSERT INTO t VALUES (AES_ENCRYPT('text', ", "))"),
    ("SELECT AES_DECRYPT(c, SHA2(", ", 256)) FROM t"),
    ("SELECT DES_ENCRYPT(c, ", ") FROM t"),
    ("SELECT ENCODE(c, ", ")"),
    ("SELECT keyring_key_store('id', 'AES', ", ")"),
    ("SET GLOBAL wsrep_sst_auth = ", ""),
    ("SET GLOBAL file_key_management_filekey = ", ""),
    ("SET @@GLOBAL.authentication_ldap_simple_bind_root_pwd = ", ""),
    ("SET GLOBAL x_secret_id = ", ", GLOBAL y = 1"),
    ("CREATE TABLE f (a INT) ENGINE = FEDERATED CONNECTION = ", ""),
    ("ALTER TABLE f CONNECTION=", ", COMMENT='x'"),
    ("UPDATE mysql.user SET authentication_string = ", " WHERE User = 'root'"),
    ("UPDATE users SET password = ", ", name = 'x' WHERE id = 1"),
    ("SELECT * FROM users WHERE name = 'x' AND password = ", " AND id = 1"),
    ("SELECT * FROM users WHERE passwd IN ('x', ", ")"),
    ("INSERT INTO users (name, password) VALUES ('x', ", ")"),
    ("INSERT INTO users (`password`, name) VALUES ('x', 'y'), (", ", 'z')"),
    ("REPLACE INTO users (id, password, name) SELECT 1, ", ", 'x'"),
];

/// The ways to write a text.
#[derive(Clone, Copy, Debug)]
enum Quoting {
    Single,
    Double,
    /// As a server in the mode `NO_BACKSLASH_ESCAPES` takes it.
    SingleWithoutEscapes,
    DoubleWithoutEscapes,
    National,
    Introduced,
    Hexadecimal,
    HexadecimalNumber,
    Adjacent,
    /// In two parts with a comment between.
    Divided,
    /// As somebody types it who forgets the quotes.
    Bare,
    Backquoted,
}

const QUOTINGS: &[Quoting] = &[
    Quoting::Single,
    Quoting::Double,
    Quoting::SingleWithoutEscapes,
    Quoting::DoubleWithoutEscapes,
    Quoting::National,
    Quoting::Introduced,
    Quoting::Hexadecimal,
    Quoting::HexadecimalNumber,
    Quoting::Adjacent,
    Quoting::Divided,
];

fn quoted(text: &str, quote: char, backslashes: bool) -> String {
    let mut out = String::from(quote);
    for character in text.chars() {
        if character == quote {
            out.push(quote);
        } else if character == '\\' && backslashes {
            out.push('\\');
        }
        out.push(character);
    }
    out.push(quote);
    out
}

fn hexadecimal(text: &str) -> String {
    text.bytes()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn written(secret: &str, quoting: Quoting) -> String {
    let middle = secret.len() / 2;
    let middle = (0..=middle).rev().find(|at| secret.is_char_boundary(*at)).unwrap();
    let (first, second) = secret.split_at(middle);
    match quoting {
        Quoting::Single => quoted(secret, '\'', true),
        Quoting::Double => quoted(secret, '"', true),
        Quoting::SingleWithoutEscapes => quoted(secret, '\'', false),
        Quoting::DoubleWithoutEscapes => quoted(secret, '"', false),
        Quoting::National => format!("N{}", quoted(secret, '\'', true)),
        Quoting::Introduced => format!("_utf8mb4 {}", quoted(secret, '\'', true)),
        Quoting::Hexadecimal => format!("x'{}'", hexadecimal(secret)),
        Quoting::HexadecimalNumber => format!("0x{}", hexadecimal(secret)),
        Quoting::Adjacent => format!("{} {}", quoted(first, '\'', true), quoted(second, '"', true)),
        Quoting::Divided => format!("{}/**/\n{}", quoted(first, '\'', true), quoted(second, '\'', true)),
        Quoting::Bare => secret.to_owned(),
        Quoting::Backquoted => quoted(secret, '`', false),
    }
}

/// Puts comments into the gaps, changes the case of words, puts a part into version comments.
#[derive(Clone, Copy, Debug)]
enum Dressing {
    Plain,
    Lower,
    Comments,
    LineComments,
    VersionComment,
    UnclosedVersionComment,
    NewerVersionComment,
}

const DRESSINGS: &[Dressing] = &[
    Dressing::Plain,
    Dressing::Lower,
    Dressing::Comments,
    Dressing::LineComments,
    Dressing::VersionComment,
    Dressing::UnclosedVersionComment,
    Dressing::NewerVersionComment,
];

fn dressed(before: &str, written: &str, behind: &str, dressing: Dressing) -> String {
    match dressing {
        Dressing::Plain => format!("{before}{written}{behind}"),
        Dressing::Lower => format!("{}{written}{}", before.to_lowercase(), behind.to_lowercase()),
        Dressing::Comments => {
            // Not between a function and its parenthesis.
            let before = before.replace(' ', " /* it's */ ").replace("/* it's */ (", "(");
            format!("{before}/* \" */{written}/**/{behind}")
        }
        Dressing::LineComments => format!("{before}-- don't\n{written} # \"\n{behind}"),
        Dressing::VersionComment => format!("/*!50000 {before}{written}*/{behind}"),
        Dressing::UnclosedVersionComment => format!("{before}/*!{written}{behind}"),
        // Newer servers than any pass it over: to them the quote is none.
        Dressing::NewerVersionComment => format!("{before}/*!99999 ' */{written}{behind}"),
    }
}

fn modes() -> [Mode; 4] {
    [Mode::Full, Mode::LiteralsMasked, Mode::Fingerprint, Mode::None]
}

/// Nothing that is kept of the statement holds three letters in a row of a part of the secret that begins with Z, or six
/// characters of it as hexadecimal digits.
fn assert_hidden(sql: &[u8], secret: &str) {
    let parts = secret.split(|character: char| !character.is_ascii_alphanumeric());
    let parts = parts.filter(|part| part.starts_with('Z')).map(str::to_lowercase);
    let mut hidden: Vec<String> = parts.flat_map(|part| pieces(&part, 3)).collect();
    hidden.extend(pieces(&hexadecimal(secret), 12));
    for mode in modes() {
        let analysis = analyze(sql, sql.len() as u64, &Config { mode, ..Config::default() });
        let mut shown = analysis.tables.join("\n");
        shown.extend(analysis.text.map(|text| text.text));
        let shown = shown.to_lowercase();
        for piece in &hidden {
            let sql = String::from_utf8_lossy(sql);
            assert!(!shown.contains(piece), "{piece:?} of {secret:?} in {mode:?} of {sql}: {shown:?}");
        }
    }
}

fn pieces(text: &str, length: usize) -> Vec<String> {
    text.as_bytes().windows(length).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
}

/// Letters that no statement has beside one another, with whatever breaks quoting between.
fn secret() -> impl Strategy<Value = String> {
    proptest::string::string_regex("(Z[qjxk7]Z|[ '\"`\\\\;,()@#/*!?%=é密-]| from | and | as ){3,12}Zq7xZk")
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_quoted_secret_never_shows(
        form in select(FORMS),
        quoting in select(QUOTINGS),
        dressing in select(DRESSINGS),
        secret in secret(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let sql = dressed(form.0, &written(&secret, quoting), form.1, dressing);
        assert_hidden(sql.as_bytes(), &secret);
        // … nor when the text was cut, wherever.
        assert_hidden(&sql.as_bytes()[..cut.index(sql.len() + 1)], &secret);
    }

    #[test]
    fn an_account_statement_hides_what_lacks_its_quotes(
        form in select(&FORMS[..13]),
        quoting in select(&[Quoting::Bare, Quoting::Backquoted][..]),
        secret in "(Z[qjxk7]){4,9}",
    ) {
        let sql = dressed(form.0, &written(&secret, quoting), form.1, Dressing::Plain);
        assert_hidden(sql.as_bytes(), &secret);
    }

    #[test]
    fn a_secret_within_a_literal_never_shows(
        around in select(&[
            ("PREPARE s FROM ", "CREATE USER u IDENTIFIED BY "),
            ("EXECUTE IMMEDIATE ", "SET PASSWORD = "),
            ("SET @statement = ", "CHANGE MASTER TO MASTER_PASSWORD="),
            ("CREATE TABLE f (a INT) ENGINE=CONNECT OPTION_LIST=", "user=u,password="),
            ("CREATE TABLE f (a INT) ENGINE=SPIDER COMMENT=", "host \"h\", password "),
            ("INSERT INTO log VALUES (1, ", "identified by "),
        ][..]),
        inner in select(QUOTINGS),
        outer in select(&QUOTINGS[..4]),
        secret in secret(),
    ) {
        let statement = format!("{}{}", around.1, written(&secret, inner));
        let sql = format!("{}{}", around.0, written(&statement, outer));
        assert_hidden(sql.as_bytes(), &secret);
    }

    #[test]
    fn masking_what_is_masked_changes_nothing(
        form in select(FORMS),
        quoting in select(QUOTINGS),
        dressing in select(DRESSINGS),
        secret in secret(),
    ) {
        let sql = dressed(form.0, &written(&secret, quoting), form.1, dressing);
        for mode in [Mode::Full, Mode::LiteralsMasked] {
            let config = Config { mode, ..Config::default() };
            let once = analyze(sql.as_bytes(), sql.len() as u64, &config).text.unwrap().text;
            let twice = analyze(once.as_bytes(), once.len() as u64, &config).text.unwrap().text;
            prop_assert_eq!(&once, &twice, "{:?} of {}", mode, sql);
        }
    }
}

#[test]
fn an_address_with_a_password_never_shows() {
    for sql in [
        "SELECT 'mysql://u:Zq7xZk@h/d'",
        "SET GLOBAL proxy = 'http://u:Zq7xZk@h'",
        "CREATE TABLE f (a INT) ENGINE=FEDERATED CONNECTION='mysql://u:Zq7xZk@h:3306/d/t'",
        "SELECT 'it\\'s', 'mysql://u:Zq7xZk@h/d'",
        "SELECT 'mysql://u:Zq7xZk",
    ] {
        assert_hidden(sql.as_bytes(), "Zq7xZk");
    }
    assert_eq!(text("SELECT 'https://example.com/a?b=c:d'"), "SELECT 'https://example.com/a?b=c:d'");
}

#[test]
fn what_is_no_secret_stays() {
    for sql in [
        "SELECT token_count, 'kept' FROM t WHERE name = 'it\\'s' AND id = 0x12",
        "ALTER USER u PASSWORD EXPIRE INTERVAL 90 DAY",
        "SHOW VARIABLES LIKE 'max_connections'",
        "KILL CONNECTION 5",
        "INSERT INTO t (a, b) VALUES ('x', 'y')",
        "SELECT MD4('x'), encoded FROM t WHERE shape = 'round'",
    ] {
        let shown = text(sql);
        assert!(shown.len() + 4 >= sql.len() || shown == sql, "{sql}: {shown}");
    }
}
