//! Pinned probes go on while there is no collector.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;
use whence_collector::probe::{Attachment, Config};
use whence_model::Event;

use crate::server::Server;
use crate::watch::Watch;

/// A directory for pins, whose file system goes with it: what is pinned there ends.
pub struct Pins {
    directory: TempDir,
}

impl Pins {
    pub fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("pins")
    }

    /// How many programs have probes.
    pub fn programs(&self) -> usize {
        links(&self.path()).filter(|links| !links.is_empty()).count()
    }

    pub fn config(&self) -> Config {
        Config { pin_directory: Some(self.path()), ..Config::default() }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // Fails when nothing was mounted.
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
    }
}

fn command(number: u32) -> String {
    format!("0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT {number}\t0")
}

fn texts(events: &[Event]) -> Vec<String> {
    let text = |event: &Event| event.statement.as_ref().unwrap().sql.as_ref().unwrap().text.clone();
    events.iter().map(text).collect()
}

/// The probes on each program.
fn links(pins: &Path) -> impl Iterator<Item = Vec<PathBuf>> {
    let directories = |path: &Path| -> Vec<PathBuf> {
        // A collector may remove it meanwhile.
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    // The kernel keeps files of its own at the root.
    let builds =
        directories(pins).into_iter().map(|build| build.join("links")).filter(|links| links.is_dir());
    builds.flat_map(move |build| directories(&build)).map(move |binary| directories(&binary))
}

#[test]
fn nothing_is_lost_while_no_collector_runs() {
    let pins = Pins::new();
    let mut server = Server::start();
    let mut watch = Watch::new(&pins.config());
    let attachment = watch.attach(&server);
    assert!(!attachment.taken_up());
    server.run(&command(1));
    assert_eq!(texts(&watch.events(1)), ["SELECT 1"]);

    // One record waits and one command is under way when the collector goes.
    server.run(&command(2));
    server.begin("0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 3\t0\t200000");
    attachment.leave();
    drop(watch);
    server.wait();
    server.run(&format!("{}\n{}", command(4), command(5)));

    let mut watch = Watch::new(&pins.config());
    let attachment = watch.attach(&server);
    assert!(attachment.taken_up(), "there was no gap");
    server.run(&command(6));
    assert_eq!(texts(&watch.events(5)), ["SELECT 2", "SELECT 3", "SELECT 4", "SELECT 5", "SELECT 6"]);
    let counters = watch.probes.counters(server.pid()).unwrap();
    assert_eq!((counters.seen, counters.submitted, counters.unmatched), (6, 6, 0));

    // The end of the watch is an end: nothing stays pinned on the binary.
    assert!(links(&pins.path()).any(|links| !links.is_empty()));
    drop(attachment);
    assert!(links(&pins.path()).all(|links| links.is_empty()));
    server.wait_until_unwatched();
    server.run(&command(7));
    assert_eq!(watch.rest(), []);
}

#[test]
fn probes_that_one_collector_left_on_two_binaries_are_taken_up_each() {
    let pins = Pins::new();
    let (mut first, mut second) = (Server::start(), Server::start());
    let mut watch = Watch::new(&pins.config());
    let slots = [watch.attach(&first), watch.attach(&second)].map(|attachment| {
        let slot = attachment.slot();
        attachment.leave();
        slot
    });
    drop(watch);
    first.run(&command(1));
    second.run(&command(2));

    let mut watch = Watch::new(&pins.config());
    let third = Server::start();
    let new = watch.attach(&third);
    assert!(!slots.contains(&new.slot()), "a slot in use is given to nobody else");
    let attachments = [watch.attach(&second), watch.attach(&first)];
    assert!(attachments.iter().all(Attachment::taken_up));
    assert_eq!(attachments.map(|attachment| attachment.slot()), [slots[1], slots[0]]);
    assert_eq!(texts(&watch.events(2)), ["SELECT 1", "SELECT 2"]);
}
