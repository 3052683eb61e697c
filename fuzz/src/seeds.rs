//! Inputs to begin with: what is read when nothing is wrong.

use uuid::Uuid;
use whence_abi::record::{Overflow, Plain as _, Record, Span, bit, kind, outcome, provider, string};
use whence_chain::SigningKey;
use whence_collector::seal::{Link, Sealer};
use whence_model::CollectorId;

use crate::record::PROCESS;

/// A little program with two notes, as an assembler and linker lay it out: head, one segment, five sections.
pub fn binaries() -> Vec<Vec<u8>> {
    vec![binary(62, 2), binary(62, 3), binary(183, 3)]
}

fn binary(machine: u16, kind: u16) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let mut notes = Vec::new();
    for arguments in ["8@-24(%rbp) -4@%eax 8@counter(%rip)", "8@[sp, 16] -4@w1 8f@%xmm0"] {
        let strings = format!("mysql\0command__start\0{arguments}\0");
        let words = [8, 24 + u32::try_from(strings.len()).unwrap_or(0), 3];
        notes.extend(words.into_iter().flat_map(u32::to_le_bytes));
        notes.extend(b"stapsdt\0");
        notes.extend([BASE + 0x40, BASE + 0x48, BASE + 0x50].into_iter().flat_map(u64::to_le_bytes));
        notes.extend(strings.as_bytes());
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
    let names = b"\0.note.stapsdt\0.stapsdt.base\0.symtab\0.strtab\0\0";
    let symbol_names = b"\0counter\0";
    let mut symbols = vec![0; 24];
    symbols.extend(1_u32.to_le_bytes());
    symbols.extend([0x11, 0, 1, 0]);
    symbols.extend((BASE + 0x60).to_le_bytes());
    symbols.extend(8_u64.to_le_bytes());

    let mut file = vec![0; 64 + 56];
    let mut parts = Vec::new();
    for part in [&notes[..], &[0; 8], &symbols, symbol_names, names] {
        parts.push((file.len() as u64, part.len() as u64));
        file.extend(part);
        file.resize(file.len().next_multiple_of(8), 0);
    }
    let sections = file.len() as u64;
    file.extend([0; 64]);
    // Name, type, address, link, size of an entry.
    let headers = [
        (1_u32, 7_u32, 0, 0_u32, 0_u64),
        (15, 1, BASE + 0x48, 0, 0),
        (29, 2, 0, 4, 24),
        (37, 3, 0, 0, 0),
        (0, 3, 0, 0, 0),
    ];
    for ((name, of_kind, address, link, entry), (at, bytes)) in headers.into_iter().zip(parts) {
        file.extend(name.to_le_bytes());
        file.extend(of_kind.to_le_bytes());
        file.extend([0_u64, address, at, bytes].into_iter().flat_map(u64::to_le_bytes));
        file.extend(link.to_le_bytes());
        file.extend(0_u32.to_le_bytes());
        file.extend([1, entry].into_iter().flat_map(u64::to_le_bytes));
    }
    let length = file.len() as u64;
    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(16, 0);
    head.extend([kind, machine].into_iter().flat_map(u16::to_le_bytes));
    head.extend(1_u32.to_le_bytes());
    head.extend([BASE, 64, sections].into_iter().flat_map(u64::to_le_bytes));
    head.extend(0_u32.to_le_bytes());
    head.extend([64_u16, 56, 1, 64, 6, 5].into_iter().flat_map(u16::to_le_bytes));
    head.extend([1_u32, 7].into_iter().flat_map(u32::to_le_bytes));
    head.extend([0, BASE, BASE, length, length, 4096].into_iter().flat_map(u64::to_le_bytes));
    file[..head.len()].copy_from_slice(&head);
    file
}

pub fn arguments() -> Vec<Vec<u8>> {
    let texts = [
        "\08@7008(%rbx) 4@%r14d 8@%rdx 8@328(%rax)",
        "\0-1@%ah 2@$-3 8@counter+8(%rip) 8@table(,%rcx,8) 8f@%xmm0",
        "\x028@$counter 4@-24+8(%rbp,%rdi,4) 8@%fs:40 8@0x10",
        "\x018@[sp, 16] -4@w1 8@x0 8@[x1, w2, sxtw 3] 8@[x0, :lo12:counter]",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub fn statements() -> Vec<Vec<u8>> {
    let texts = [
        "SELECT a.b, 'it''s', x'ff', 0x12, -1.5e3 FROM `c d` AS e JOIN f USING (g) WHERE h IN (1, 2) /* i */ -- j",
        "INSERT INTO t (a, password) VALUES (1, 'x'), (2, _utf8mb4'y')",
        "CREATE USER 'a'@'h' IDENTIFIED WITH p BY 'x' REPLACE \"y\", b IDENTIFIED BY 'z' REQUIRE SSL",
        "/*!50000 SET */ PASSWORD FOR a = /*!99999 ' */ PASSWORD('x\\'y') # z",
        "SET STATEMENT a = 1 FOR BEGIN NOT ATOMIC EXECUTE IMMEDIATE 'DROP TABLE t'; END",
        "CHANGE MASTER TO MASTER_PASSWORD = 'x', MASTER_HOST = 'mysql://u:p@h'",
        "You have an error near 'IDENTIFIED BY 'x' FOO' at line 1",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A login, a command, a command with long SQL, and a disconnect.
pub fn records() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut add = |record: Vec<u8>| {
        let length = u16::try_from(record.len()).unwrap_or(u16::MAX);
        all.extend(length.to_le_bytes());
        all.extend(record);
    };
    add(record(kind::CONNECT, 0, &[(string::PRIV_USER, b"app"), (string::HOST_OR_IP, b"10.0.0.1")]));
    let strings: [(usize, &[u8]); 3] =
        [(string::PRIV_USER, b"app"), (string::DATABASE, b"shop"), (string::SQL, b"SELECT 1")];
    add(record(kind::COMMAND, bit::COMMAND | bit::DURATION | bit::ROWS_SENT, &strings));
    let sql = b"SELECT 'long'";
    let overflow = Overflow {
        kind: kind::OVERFLOW,
        length: u32::try_from(sql.len()).unwrap_or(0),
        tgid: PROCESS,
        tid: 70,
        start_ns: 5,
    };
    add([overflow.as_bytes(), sql].concat());
    add(record(kind::COMMAND, bit::COMMAND | bit::OVERFLOW | bit::ERROR_CODE | bit::SQLSTATE, &strings));
    add(record(kind::DISCONNECT, bit::SEEN_BEFORE, &[]));
    vec![all]
}

/// The batch of those records, not compressed.
pub fn batches() -> Vec<Vec<u8>> {
    let id = CollectorId(Uuid::from_u128(1));
    let Ok(mut sealer) = Sealer::new(id, SigningKey::generate(), Link::FIRST) else { return Vec::new() };
    records().iter().flat_map(|records| crate::record::events(records)).for_each(|event| sealer.event(event));
    let sealed = sealer.seal().ok().flatten();
    sealed.and_then(|batch| zstd::decode_all(&*batch.bytes).ok()).into_iter().collect()
}

fn record(of_kind: u32, present: u32, strings: &[(usize, &[u8])]) -> Vec<u8> {
    let mut record = Record {
        kind: of_kind,
        provider: provider::FUNCTIONS,
        tgid: PROCESS,
        tid: 70,
        present: present | bit::CONNECTION_ID,
        outcome: outcome::OK,
        start_ns: 5,
        connection_id: 12,
        command: 3,
        ..Record::default()
    };
    let mut tail = Vec::new();
    for &(index, bytes) in strings {
        let number = |length: usize| u16::try_from(length).unwrap_or(0);
        record.strings[index] = Span { offset: number(tail.len()), length: number(bytes.len()) };
        record.present |= bit::of(index);
        tail.extend_from_slice(bytes);
    }
    record.tail_bytes = u32::try_from(tail.len()).unwrap_or(0);
    [record.as_bytes(), &tail].concat()
}
