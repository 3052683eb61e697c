//! Containers of one image: their mounts tell of different files, and the kernel puts the probes of all on one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use whence_abi::record::Counters;
use whence_collector::probe::{Attachment, Config};
use whence_model::{Event, EventKind, Outcome};

use crate::pins::Pins;
use crate::server::{Server, copy_to};
use crate::watch::Watch;

const OK: Option<Outcome> = Some(Outcome::Ok { rows_sent: None, rows_affected: None });

/// An image with the program in it, and the file systems of its containers.
pub struct Image {
    directory: TempDir,
    mounts: Vec<PathBuf>,
}

impl Image {
    pub fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let lower = directory.path().join("lower");
        fs::create_dir(&lower).unwrap();
        copy_to(&lower);
        Self { directory, mounts: Vec::new() }
    }

    /// Starts the program in a new container.
    pub fn start(&mut self) -> Server {
        let container = self.directory.path().join(self.mounts.len().to_string());
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| {
            let path = container.join(name);
            fs::create_dir_all(&path).unwrap();
            path
        });
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.directory.path().join("lower").display(),
            upper.display(),
            work.display()
        );
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .expect("this test needs root and the overlay file system");
        self.mounts.push(merged.clone());
        Server::start_program(merged.join("usdt-server"))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        for mount in &self.mounts {
            // Also while the program still runs from it.
            umount2(mount, MntFlags::MNT_DETACH).unwrap();
        }
    }
}

/// Two containers, and a watch that was put on each as a binary of its own.
fn start(config: &Config) -> (Image, [Server; 2], Watch, [Attachment; 2]) {
    let mut image = Image::new();
    let servers = [image.start(), image.start()];
    let [first, second] = [&servers[0], &servers[1]].map(|it| fs::metadata(it.executable()).unwrap());
    assert_ne!((first.dev(), first.ino()), (second.dev(), second.ino()), "mounts of one file");
    let mut watch = Watch::new(config);
    let attachments = [watch.attach_process(&servers[0]), watch.attach_process(&servers[1])];
    assert_ne!(attachments[0].slot(), attachments[1].slot());
    (image, servers, watch, attachments)
}

const SESSION: &str = "0\tconnect\t7\tapp\tweb\n\
     0\tcommand\t7\t3\tapp\tweb\tshop\tSELECT 1\t0\n\
     0\tcommand\t7\t14\tapp\tweb\t-\t-\t1\n\
     0\tdisconnect\t7";

/// That the session was recorded once for each of `servers`, which performed it one after the other.
fn assert_sessions(watch: &mut Watch, servers: &[&Server]) {
    let events = watch.events(4 * servers.len());
    for (events, server) in events.chunks(4).zip(servers) {
        let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
        let expected = [EventKind::Connect, EventKind::Command, EventKind::Command, EventKind::Disconnect];
        assert_eq!(kinds, expected, "{events:#?}");
        assert!(events.iter().all(|event| event.server.process_id == server.pid()));
        assert_eq!(events[1].outcome, OK);
        assert_eq!(events[1].statement.as_ref().unwrap().sql.as_ref().unwrap().text, "SELECT 1");
        assert!(matches!(events[2].outcome, Some(Outcome::Error { .. })));
    }
}

fn assert_counted(watch: &Watch, server: &Server, events: u64) {
    let expected = Counters { seen: events, submitted: events, ..Counters::default() };
    assert_eq!(watch.probes.counters(server.pid()).unwrap(), expected);
}

#[test]
fn containers_of_one_image_are_recorded_once_each() {
    let (mut image, [mut first, mut second], mut watch, attachments) = start(&Config::default());
    let mut third = image.start();
    watch.know(&third);
    for server in [&mut first, &mut second, &mut third] {
        server.run(SESSION);
        server.run(SESSION);
    }
    assert_sessions(&mut watch, &[&first, &first, &second, &second, &third, &third]);
    for server in [&first, &second, &third] {
        assert_counted(&watch, server, 8);
    }
    let [one, other] = attachments;
    drop(one);
    for server in [&mut first, &mut second, &mut third] {
        server.run(SESSION);
    }
    assert_sessions(&mut watch, &[&first, &second, &third]);

    // The slot of the one that has gone is taken by one on the same file.
    let again = watch.attach_process(&first);
    for server in [&mut first, &mut second, &mut third] {
        server.run(SESSION);
    }
    assert_sessions(&mut watch, &[&first, &second, &third]);
    drop(other);
    for server in [&mut first, &mut second, &mut third] {
        server.run(SESSION);
        assert_counted(&watch, server, 20);
    }
    assert_sessions(&mut watch, &[&first, &second, &third]);

    drop(again);
    first.run(SESSION);
    assert_eq!(watch.rest(), []);
}

/// Servers that perform commands while probes come and go.
struct Busy {
    servers: [Server; 2],
    watch: Watch,
    /// What they perform at once, and how many events it makes.
    script: String,
    makes: usize,
    expected: usize,
    events: Vec<Event>,
}

impl Busy {
    fn new(servers: [Server; 2], watch: Watch, script: String, makes: usize) -> Self {
        Self { servers, watch, script, makes, expected: 0, events: Vec::new() }
    }

    /// With many quick commands.
    fn with_commands(servers: [Server; 2], watch: Watch) -> Self {
        let script = "0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 1\t0\t0\t500";
        Self::new(servers, watch, script.into(), 500)
    }

    /// With sessions, whose commands take a while.
    fn with_sessions(servers: [Server; 2], watch: Watch) -> Self {
        let session = "0\tconnect\t7\tapp\tweb\n\
             0\tcommand\t7\t3\tapp\tweb\tshop\tSELECT 1\t0\t1000\n\
             0\tdisconnect\t7";
        Self::new(servers, watch, [session; 20].join("\n"), 60)
    }

    fn perform(&mut self) {
        for server in &mut self.servers {
            server.begin(&self.script);
        }
        for server in &mut self.servers {
            server.wait();
        }
        self.events.extend(self.watch.rest());
        self.expected += self.makes;
    }

    fn perform_while_going(&mut self, attachment: Attachment) {
        let going = std::thread::spawn(move || drop(attachment));
        while !going.is_finished() {
            self.perform();
        }
        self.perform();
    }

    /// Nothing was lost and nothing came twice.
    fn assert_recorded_once(&self) {
        let mut of_each: BTreeMap<u32, Vec<&Event>> = BTreeMap::new();
        for event in &self.events {
            of_each.entry(event.server.process_id).or_default().push(event);
        }
        for server in &self.servers {
            let events = &of_each[&server.pid()];
            let is_odd = |event: &&&Event| event.kind == EventKind::Command && event.outcome != OK;
            assert_eq!(events.iter().find(is_odd), None);
            assert_eq!(events.len(), self.expected);
        }
    }
}

/// A thread begins a command for the probes that were put on last, in Linux 6.18, and the others see it begun.
#[test]
fn the_newer_of_two_attachments_hands_over() {
    for _ in 0..3 {
        let (_image, servers, watch, [_older, newer]) = start(&Config::default());
        let mut busy = Busy::with_commands(servers, watch);
        busy.perform();
        busy.perform_while_going(newer);
        busy.assert_recorded_once();
    }
}

#[test]
fn sessions_are_handed_over() {
    let (_image, servers, watch, [_older, newer]) = start(&Config::default());
    let mut busy = Busy::with_sessions(servers, watch);
    busy.perform();
    busy.perform_while_going(newer);
    busy.assert_recorded_once();
}

#[test]
fn the_older_of_two_attachments_hands_over() {
    let (_image, servers, watch, [mut older, newer]) = start(&Config::default());
    let mut busy = Busy::with_commands(servers, watch);
    busy.perform();
    // Now the older one has all.
    busy.perform_while_going(newer);
    for _ in 0..3 {
        let newer = busy.watch.attach_process(&busy.servers[1]);
        busy.perform();
        busy.perform_while_going(older);
        older = newer;
    }
    busy.assert_recorded_once();
}

#[test]
fn pinned_probes_of_two_containers_record_once_while_no_collector_runs() {
    let pins = Pins::new();
    let (_image, [mut first, mut second], watch, attachments) = start(&pins.config());
    attachments.into_iter().for_each(Attachment::leave);
    drop(watch);
    first.run(SESSION);
    second.run(SESSION);

    let mut watch = Watch::new(&pins.config());
    let attachments = [watch.attach_process(&second), watch.attach_process(&first)];
    assert!(attachments.iter().all(Attachment::taken_up));
    assert_sessions(&mut watch, &[&first, &second]);
    first.run(SESSION);
    second.run(SESSION);
    assert_sessions(&mut watch, &[&first, &second]);
    for server in [&first, &second] {
        assert_counted(&watch, server, 8);
    }
}
