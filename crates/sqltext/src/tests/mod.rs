//! Golden statements and properties.

use proptest::prelude::*;
use whence_model::StatementClass::{Ddl, Unknown};

use super::*;

mod secrets;

fn full(sql: &str) -> Analysis {
    analyze(sql.as_bytes(), sql.len() as u64, &Config::default())
}

fn text(sql: &str) -> String {
    full(sql).text.unwrap().text
}

/// `classes.txt`: a class and a statement, one a line.
#[test]
fn the_verb_gives_the_class() {
    let lines = include_str!("classes.txt").lines();
    let wrong = lines.filter_map(|line| {
        let (class, sql) = line.split_once('\t').unwrap();
        let found = format!("{:?}", full(sql).class).to_lowercase();
        (found != class).then(|| format!("{found}, not {class}: {sql}"))
    });
    assert_eq!(wrong.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(full("-- x\n # y\n drop table t").class, Ddl);
    assert_eq!(full("").class, Unknown);
}

#[test]
fn credentials_are_masked() {
    for (sql, masked) in [
        ("CREATE USER a IDENTIFIED BY 'x'", "CREATE USER a IDENTIFIED BY '***'"),
        (
            "CREATE USER 'a'@'h' IDENTIFIED BY 'x', 'b'@'h' IDENTIFIED BY \"y\"",
            "CREATE USER 'a'@'h' IDENTIFIED BY '***', 'b'@'h' IDENTIFIED BY '***'",
        ),
        (
            "CREATE USER a IDENTIFIED VIA ed25519 USING PASSWORD('x')",
            "CREATE USER a IDENTIFIED VIA ed25519 USING PASSWORD('***')",
        ),
        ("ALTER USER a IDENTIFIED WITH p AS 0xABCD", "ALTER USER a IDENTIFIED WITH p AS '***'"),
        ("SET PASSWORD = PASSWORD('x')", "SET PASSWORD = PASSWORD('***')"),
        ("SET PASSWORD FOR 'a'@'h' = 'x'", "SET PASSWORD FOR 'a'@'h' = '***'"),
        ("SET /* y */ PASSWORD FOR a = 'x'", "SET /* y */ PASSWORD FOR a = '***'"),
        (
            "CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD='x'",
            "CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD='***'",
        ),
        (
            "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD = 'x'",
            "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD = '***'",
        ),
        ("START SLAVE USER='u' PASSWORD='x'", "START SLAVE USER='u' PASSWORD='***'"),
        (
            "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD 'x')",
            "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD '***')",
        ),
        ("SELECT AES_DECRYPT(c, 'x') FROM t", "SELECT AES_DECRYPT(c, '***') FROM t"),
        ("UPDATE u SET password = 'x' WHERE id = 1", "UPDATE u SET password = '***' WHERE id = 1"),
        ("CREATE USER a IDENTIFIED BY 'x", "CREATE USER a IDENTIFIED BY '***'"),
        (
            "CREATE USER a IDENTIFIED/**/BY/* */'x' 'y'",
            "CREATE USER a IDENTIFIED/* *** */BY/* *** */'***' '***'",
        ),
        ("CREATE USER a /*!50000 IDENTIFIED BY 'x' */", "CREATE USER a /*!50000 IDENTIFIED BY '***' */"),
        ("PREPARE s FROM 'CREATE USER a IDENTIFIED BY ''x'''", "PREPARE s FROM '***'"),
        ("SELECT 1 /* old: IDENTIFIED BY 'x' */", "SELECT 1 /* *** */"),
        (
            "CREATE TABLE f (a INT) ENGINE=FEDERATED CONNECTION='mysql://u:x@h/d/t'",
            "CREATE TABLE f (a INT) ENGINE=FEDERATED CONNECTION='***'",
        ),
        ("CREATE USER a IDENTIFIED BY 'x\\', b IDENTIFIED BY 'y'", "CREATE USER a IDENTIFIED '***'"),
        ("SELECT 'kept', 12 FROM t", "SELECT 'kept', 12 FROM t"),
    ] {
        assert_eq!(text(sql), masked);
    }
}

#[test]
fn literals_are_masked_where_asked_for() {
    let config = Config { mode: Mode::LiteralsMasked, ..Config::default() };
    let sql = b"SELECT a1, 'x', 12.5e3, 0xFF FROM t /* c */ WHERE b = \"y\"";
    let masked = analyze(sql, sql.len() as u64, &config).text.unwrap().text;
    assert_eq!(masked, "SELECT a1, ?, ?, ? FROM t   WHERE b = ?");
}

#[test]
fn what_a_message_quotes_is_masked_where_literals_are() {
    for (message, cut, masked) in [
        ("Duplicate entry 'it's' for key 'PRIMARY'", false, "Duplicate entry '***'"),
        ("Unknown column `a` in \"b\" at row 1", false, "Unknown column '***' at row 1"),
        ("No database selected", false, "No database selected"),
        ("Table 'a.b' doesn't exist", false, "Table '***' doesn't exist"),
        ("Truncated value: 'abc' and 'd", true, "Truncated value: '***'"),
    ] {
        assert_eq!(mask_quotes(message.as_bytes(), cut).text, masked);
    }
}

#[test]
fn a_cut_is_marked_in_every_mode_that_keeps_text() {
    let sql = b"SELECT 'a secret that is long' FROM t WHERE b = 'and goes";
    for mode in [Mode::Full, Mode::LiteralsMasked] {
        // Cut at the source.
        let text = analyze(sql, 9000, &Config { mode, ..Config::default() }).text.unwrap();
        assert_eq!((text.original_bytes, text.truncated), (9000, true), "{mode:?}");
        // Cut here.
        let text = analyze(sql, sql.len() as u64, &Config { mode, max_bytes: 10 }).text.unwrap();
        assert_eq!((text.original_bytes, text.truncated), (sql.len() as u64, true), "{mode:?}");
        assert_eq!(text.text.len(), 10, "{mode:?}");
    }
    for mode in [Mode::Fingerprint, Mode::None] {
        let kept = analyze(sql, 9000, &Config { mode, ..Config::default() });
        assert_eq!(kept.text, None);
        assert_eq!(kept.fingerprint.is_some(), mode == Mode::Fingerprint);
        assert_eq!((kept.class, kept.tables), (StatementClass::Read, vec!["t".to_owned()]));
    }
}

#[test]
fn the_fingerprint_is_of_the_shape() {
    let same = [
        "SELECT a FROM t WHERE b IN (1, 2, 3) AND c = 'x'",
        "select  a from `t` where b in (4) and c=\"y\" -- end",
        "SELECT a /* z */ FROM t WHERE b IN (-1,NULL) AND c = ?;",
    ];
    let fingerprints = same.map(|sql| full(sql).fingerprint.unwrap());
    assert!(fingerprints.iter().all(|fingerprint| *fingerprint == fingerprints[0]));
    assert_ne!(
        full("SELECT a FROM t WHERE b = 1").fingerprint,
        full("SELECT a FROM u WHERE b = 1").fingerprint
    );
    let one = full("INSERT INTO t VALUES (1, 'a')").fingerprint;
    assert_eq!(one, full("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL)").fingerprint);
}

#[test]
fn tables_are_found() {
    for (sql, tables) in [
        (
            "SELECT * FROM a, `b` AS x, c.d y JOIN e ON 1 LEFT JOIN `f g` USING (i)",
            vec!["a", "b", "c.d", "e", "f g"],
        ),
        ("INSERT INTO a.b (c) SELECT d FROM e", vec!["a.b", "e"]),
        ("INSERT IGNORE t VALUES (1) ON DUPLICATE KEY UPDATE a = 1", vec!["t"]),
        ("UPDATE LOW_PRIORITY t SET a = 1", vec!["t"]),
        ("DELETE FROM t WHERE a IN (SELECT b FROM u)", vec!["t", "u"]),
        ("SELECT EXTRACT(YEAR FROM day) FROM t FOR UPDATE", vec!["t"]),
        ("DROP TABLE IF EXISTS a, b", vec!["a", "b"]),
        ("TRUNCATE t", vec!["t"]),
        ("LOAD DATA INFILE 'f' INTO TABLE t", vec!["t"]),
        ("WITH c AS (SELECT 1 FROM t) SELECT * FROM c", vec!["t"]),
        ("SELECT 1 INTO OUTFILE '/f' FROM t", vec!["t"]),
        ("SELECT 1", vec![]),
    ] {
        assert_eq!(full(sql).tables, tables, "{sql}");
    }
}

#[test]
fn a_name_that_no_server_takes_is_cut() {
    let longest = format!("{0}.{0}", "𝄞".repeat(64));
    assert_eq!(full(&format!("SELECT 1 FROM {longest}")).tables, [longest]);
    for name in [format!("`{}`", "x".repeat(5000)), "密".repeat(5000), vec!["a"; 5000].join(".")] {
        let tables = full(&format!("INSERT INTO {name} VALUES (1)")).tables;
        assert!(matches!(&tables[..], [table] if table.len() <= 516 && table.ends_with('…')), "{tables:?}");
    }
    let expression = "密".repeat(5000);
    let sql = format!("WITH {expression} AS (SELECT 1) SELECT * FROM {expression}");
    assert!(full(&sql).tables.is_empty());
    let bytes = [b"SELECT 1 FROM `", &[0xff; 5000][..], b"`"].concat();
    let tables = analyze(&bytes, bytes.len() as u64, &Config::default()).tables;
    assert!(tables[0].len() <= 516 && tables[0].ends_with('…'), "{tables:?}");
}

#[test]
fn a_cut_is_marked() {
    let text = analyze(b"SELECT '12345", 40, &Config::default()).text.unwrap();
    assert_eq!((text.truncated, text.original_bytes), (true, 40));
    let config = Config { max_bytes: 6, ..Config::default() };
    let text = analyze(b"SELECT 1", 8, &config).text.unwrap();
    assert_eq!((text.text.as_str(), text.truncated, text.original_bytes), ("SELECT", true, 8));
}

#[test]
fn a_message_does_not_quote_a_credential() {
    let message = b"You have an error near 'IDENTIFIED BY 'x' FOO' at line 1";
    assert_eq!(mask_message(message, false).text, "You have an error near '***' at line 1");
    assert_eq!(mask_message(b"Table 'a.b' doesn't exist", false).text, "Table 'a.b' doesn't exist");
}

proptest! {
    #[test]
    fn any_bytes_are_taken(sql in proptest::collection::vec(any::<u8>(), 0..400)) {
        for mode in [Mode::Full, Mode::LiteralsMasked, Mode::Fingerprint, Mode::None] {
            let config = Config { mode, max_bytes: 100 };
            let analysis = analyze(&sql, sql.len() as u64, &config);
            prop_assert_eq!(analysis.text.is_some(), matches!(mode, Mode::Full | Mode::LiteralsMasked));
        }
    }

    #[test]
    fn sql_like_text_is_taken(sql in "[ a-cIDENTIFIEDBYselectfrom'\"`\\\\/*!;()@=?#-]{0,200}") {
        full(&sql);
    }

    #[test]
    fn the_fingerprint_ignores_what_is_not_shape(
        number in "-?[0-9]{1,5}(\\.[0-9]+)?(e-?[0-9]+)?|0x[0-9a-f]{2,8}|NULL|true|\\?",
        string in "'([a-z?, ]|''){0,10}'|_utf8mb4'x'|N'y'|x'6162'|\"z\"",
        gap in "([ \t\n]|/\\*[x-z' ]*\\*/|-- [x-z' ]*\n|#[x-z' ]*\n){1,3}",
        list in proptest::collection::vec("-?[0-9]{1,4}|'[a-z]{0,4}'", 1..6),
        rows in 1_usize..5,
        lower in any::<bool>(),
    ) {
        let cased = |sql: String| if lower { sql.to_lowercase() } else { sql };
        let list = list.join(",");
        let select = cased("SELECT a FROM t WHERE b =".into());
        let sql = format!("{select}{gap}{number}{gap}AND c = {string} AND d IN ({list}) OR e BETWEEN {number} AND 2");
        let plain = "select a from t where b = 1 and c = 'x' and d in (1) or e between 1 and 2";
        prop_assert_eq!(full(&sql).fingerprint, full(plain).fingerprint, "{}", sql);

        let row = format!("({number},{gap}{string}, NOW(), ({list}))");
        let sql = format!("{} {}", cased("INSERT INTO t VALUES".into()), vec![row; rows].join(", "));
        prop_assert_eq!(full(&sql).fingerprint, full("INSERT INTO t VALUES (1, 'x', NOW(), (1))").fingerprint, "{}", sql);
    }

    #[test]
    fn what_is_kept_is_within_its_bounds(sql in proptest::collection::vec(any::<u8>(), 0..400), max_bytes in 0_usize..100) {
        let analysis = analyze(&sql, sql.len() as u64, &Config { max_bytes, ..Config::default() });
        let text = analysis.text.unwrap();
        // A byte that is not UTF-8 is written as four.
        prop_assert!(text.text.len() <= 4 * max_bytes);
        prop_assert_eq!(text.original_bytes, sql.len() as u64);
        prop_assert!(analysis.tables.len() <= 64);
    }
}
