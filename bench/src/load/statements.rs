//! SQL of every class, drawn from a seeded generator: what people run, what goes wrong, and what is hard to record.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// SQL to send.
pub struct Statement {
    pub sql: Vec<u8>,
    /// The database that is current once it went well.
    pub database: Option<&'static str>,
}

impl From<Vec<u8>> for Statement {
    fn from(sql: Vec<u8>) -> Self {
        Self { sql, database: None }
    }
}

impl From<String> for Statement {
    fn from(sql: String) -> Self {
        sql.into_bytes().into()
    }
}

/// Any statement, on `table`, which is the caller's own.
pub fn any(random: &mut StdRng, table: &str) -> Statement {
    match random.gen_range(0..100) {
        0..28 => read(random).into(),
        28..46 => write(random, table).into(),
        46..52 => definition(random, table).into(),
        52..60 => transaction(random).into(),
        60..70 => administration(random).into(),
        70..74 => privileges(random).into(),
        74..81 => wrong(random).into(),
        81..85 => long(random).into(),
        85..89 => binary(random).into(),
        89..93 => foreign(random).into(),
        93..96 => several(random, table).into(),
        96..99 => prepared_in_sql(random).into(),
        _ => {
            let database = *["shop", "logs"].choose(random).unwrap_or(&"shop");
            Statement { sql: format!("USE {database}").into_bytes(), database: Some(database) }
        }
    }
}

fn pick(random: &mut StdRng, choices: &[String]) -> String {
    choices.choose(random).cloned().unwrap_or_default()
}

fn read(random: &mut StdRng) -> String {
    let (a, b) = (random.gen_range(1..40), random.gen_range(0..=u32::MAX));
    pick(
        random,
        &[
            format!("SELECT id, name FROM shop.items WHERE id = {a}"),
            format!(
                "select  *\n\tfrom shop.items -- newest first\n where id<{a} and name<>'x{b}'\r\n order by id desc"
            ),
            format!(
                "SELECT /* page {b} */ i.name, COUNT(*) FROM shop.items i JOIN shop.items j ON j.id > i.id GROUP BY i.name LIMIT {a}"
            ),
            format!("/*!50000 SELECT */ {b} AS number"),
            format!("(SELECT {a}) UNION ALL (SELECT {b}) UNION (SELECT 0x{b:08x})"),
            format!("SELECT 'it''s {b}', \"double \\\" quote\", `name` FROM shop.items LIMIT 1"),
            format!("SELECT id FROM shop.items WHERE id IN ({a}, {b}, 3, 4, 5)"),
            format!("# first\nSELECT @@version, {b}"),
            "SHOW TABLES FROM shop".into(),
            "DESCRIBE shop.items".into(),
            format!("EXPLAIN SELECT * FROM shop.items WHERE id = {a}"),
            format!("SELECT 'trailing {b}' ;  "),
        ],
    )
}

fn write(random: &mut StdRng, table: &str) -> String {
    let (a, b) = (random.gen_range(1..500), random.gen_range(0..=u32::MAX));
    pick(
        random,
        &[
            format!("INSERT INTO {table} (id, note) VALUES ({a}, 'n{b}')"),
            format!("INSERT INTO {table} (note) VALUES ('one {b}'), ('two'), ('three')"),
            format!("REPLACE INTO {table} (id, note) VALUES ({a}, 'again {b}')"),
            format!("UPDATE {table} SET note = 'u{b}' WHERE id < {a}"),
            format!("DELETE FROM {table} WHERE id > {a} LIMIT 20"),
            format!("INSERT INTO {table} (note) SELECT name FROM shop.items WHERE id < 4"),
            format!(
                "INSERT INTO {table} (id, note) VALUES ({a}, 'x') ON DUPLICATE KEY UPDATE note = 'dup {b}'"
            ),
        ],
    )
}

fn definition(random: &mut StdRng, table: &str) -> String {
    let b = random.gen_range(0..=u16::MAX);
    pick(
        random,
        &[
            format!("CREATE TEMPORARY TABLE logs.t{b} (a INT, b TEXT)"),
            format!("CREATE TABLE IF NOT EXISTS {table} (id INT PRIMARY KEY)"),
            format!("DROP TABLE IF EXISTS logs.gone{b}"),
            format!("TRUNCATE TABLE {table}"),
            format!("CREATE OR REPLACE VIEW {table}_view AS SELECT id FROM shop.items WHERE id < {b}"),
            format!("ALTER TABLE {table} COMMENT = 'changed {b}'"),
        ],
    )
}

fn transaction(random: &mut StdRng) -> String {
    let words =
        ["BEGIN", "COMMIT", "ROLLBACK", "START TRANSACTION READ ONLY", "SET autocommit = 1", "commit work"];
    (*words.choose(random).unwrap_or(&"BEGIN")).to_owned()
}

fn administration(random: &mut StdRng) -> String {
    let (a, b) = (random.gen_range(1..40), random.gen_range(0..=u32::MAX));
    pick(
        random,
        &[
            format!("SET @mark = {b}"),
            "SHOW STATUS LIKE 'Threads_connected'".into(),
            "SHOW VARIABLES LIKE 'version%'".into(),
            "SHOW WARNINGS".into(),
            format!("KILL {}", 4_000_000_000_u32 - a),
            format!("DO SLEEP(0.000{a})"),
            format!("CALL shop.few({a})"),
            "SET NAMES utf8mb4".into(),
            "SELECT DATABASE(), USER(), CURRENT_USER()".into(),
            "CHECK TABLE shop.items".into(),
        ],
    )
}

fn privileges(random: &mut StdRng) -> String {
    let (a, b) = (random.gen_range(0..4), random.gen_range(0..=u32::MAX));
    pick(
        random,
        &[
            format!("CREATE USER 'guest{a}'@'localhost' IDENTIFIED BY 'hunter{b}'"),
            format!("GRANT SELECT ON shop.* TO 'guest{a}'@'localhost'"),
            format!("SET PASSWORD FOR 'guest{a}'@'localhost' = PASSWORD('hunter{b}')"),
            format!("REVOKE SELECT ON shop.* FROM 'guest{a}'@'localhost'"),
            format!("DROP USER 'guest{a}'@'localhost'"),
        ],
    )
}

fn wrong(random: &mut StdRng) -> String {
    let b = random.gen_range(0..=u32::MAX);
    pick(
        random,
        &[
            format!("SELEKT {b}"),
            format!("SELECT * FROM shop.missing{b}"),
            format!("SELECT nothing{b} FROM shop.items"),
            format!("INSERT INTO shop.items (id, name) VALUES (1, 'taken {b}')"),
            format!("SELECT 'unfinished {b}"),
            format!("CALL shop.unknown{b}()"),
            "SELECT (SELECT id FROM shop.items)".into(),
            "-- only a comment".into(),
            String::new(),
            ";".into(),
        ],
    )
}

fn long(random: &mut StdRng) -> String {
    let bytes = 1_usize << random.gen_range(10..17);
    let bytes = bytes + random.gen_range(0..bytes / 2);
    // Around the lengths at which it is kept in another way.
    let bytes =
        *[bytes, 1024, 1025, 1023, 4096, 4097, 16384, 65535, 65536, 65537].choose(random).unwrap_or(&bytes);
    let head = format!("SELECT LENGTH('{:08x} ", random.gen_range(0..=u32::MAX));
    let fill = if random.gen_bool(0.5) { "x" } else { "密" };
    let room = bytes.saturating_sub(head.len() + 2);
    let mut body = fill.repeat(room / fill.len());
    body.push_str(&"y".repeat(room % fill.len()));
    format!("{head}{body}')")
}

fn binary(random: &mut StdRng) -> Vec<u8> {
    let mut sql = b"SELECT LENGTH(_binary'".to_vec();
    let length = random.gen_range(1..400);
    let bytes = (0..length).map(|_| random.gen_range(0..=u8::MAX)).filter(|byte| !b"'\\\n".contains(byte));
    sql.extend(bytes);
    sql.extend(b"')");
    sql
}

fn foreign(random: &mut StdRng) -> String {
    let b = random.gen_range(0..=u32::MAX);
    pick(
        random,
        &[
            format!("SELECT '密码 ünï 🔑 {b}'"),
            format!("SELECT 'Ελληνικά' AS `ключ {b}`"),
            format!("INSERT INTO shop.items (name) VALUES ('日本語 {b}')"),
        ],
    )
}

fn several(random: &mut StdRng, table: &str) -> String {
    let (a, b) = (random.gen_range(1..500), random.gen_range(0..=u32::MAX));
    pick(
        random,
        &[
            format!("SELECT {a}; SELECT {b}; SELECT 3"),
            format!("INSERT INTO {table} (note) VALUES ('m{b}'); SELECT LAST_INSERT_ID();"),
            format!("SELECT {b}; SELECT * FROM shop.missing{a}; SELECT 'not reached'"),
            format!("SET @a = {a};\nSET @b = {b};\nSELECT @a + @b"),
        ],
    )
}

fn prepared_in_sql(random: &mut StdRng) -> String {
    let b = random.gen_range(0..=u32::MAX);
    pick(
        random,
        &[
            format!("PREPARE named FROM 'SELECT ?, {b}'"),
            "PREPARE named FROM 'SELECT ? + 1'".into(),
            "EXECUTE named USING @mark".into(),
            "EXECUTE named USING @mark".into(),
            "DEALLOCATE PREPARE named".into(),
        ],
    )
}
