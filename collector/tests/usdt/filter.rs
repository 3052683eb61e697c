//! Rules that the kernel decides: what is left out there and here makes up what was done, whoever is killed in between.

use std::collections::BTreeMap;

use whence_collector::policy::{Policy, Rule};
use whence_collector::probe::Config;
use whence_collector::settings::SqlMode;
use whence_model::Command;

use crate::pins::Pins;
use crate::server::Server;
use crate::watch::Watch;

const PING: Command = Command(14);

fn rules(texts: &[&str]) -> Policy {
    let rules: Vec<Rule> = texts.iter().map(|text| text.parse().unwrap()).collect();
    Policy::new(rules, SqlMode::Full, 64 << 10).unwrap()
}

/// Pings by `user` on a thread of its own.
fn pings(thread: u32, user: &str, number: u64) -> String {
    format!("{thread}\tcommand\t{}\t14\t{user}\tweb\t-\t-\t0\t0\t{number}", thread + 1)
}

fn counts(by: &[(&str, u64)]) -> BTreeMap<String, u64> {
    by.iter().map(|(rule, events)| ((*rule).to_owned(), *events)).collect()
}

#[test]
fn a_command_that_a_rule_leaves_out_is_counted_and_takes_no_room() {
    let policy = rules(&["{ name = 'pings', command = 'Ping', action = 'skip' }"]);
    // Room for some hundred records.
    let config = Config { ring_bytes: 64 << 10, ..Config::default() };
    let (mut server, mut watch) = (Server::start(), Watch::with_rules(&config, policy));
    let _attachment = watch.attach(&server);
    server.run(&pings(0, "app", 20_000));
    server.run("0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 1\t0");
    assert_eq!(watch.events(1)[0].command, Some(Command::QUERY));
    assert_eq!(watch.probes.filtered(server.pid()).unwrap(), counts(&[("pings", 20_000)]));
    assert_eq!(watch.filtered, BTreeMap::new());
    let counters = watch.probes.counters(server.pid()).unwrap();
    assert_eq!((counters.seen, counters.submitted, counters.filtered), (20_001, 1, 20_000));
    watch.probes.forget_process(server.pid()).unwrap();
    assert_eq!(watch.probes.filtered(server.pid()).unwrap(), BTreeMap::new());
}

#[test]
fn an_account_is_left_out_in_the_kernel_as_soon_as_that_knows_it() {
    let policy = rules(&["{ name = 'monitor', account = 'mon', command = 'Ping', action = 'skip' }"]);
    let (mut server, mut watch) = (Server::start(), Watch::with_rules(&Config::default(), policy));
    let _attachment = watch.attach(&server);
    server.run(&[pings(0, "mon", 10), pings(1, "app", 10)].join("\n"));
    assert_eq!(watch.events(10).len(), 10);
    assert_eq!(watch.filtered, counts(&[("monitor", 10)]));
    server.run(&[pings(0, "mon", 500), pings(1, "app", 10)].join("\n"));
    let kept = watch.events(10);
    assert!(kept.iter().all(|event| event.principal.user.as_deref() == Some("app")));
    assert_eq!(watch.filtered, counts(&[("monitor", 10)]));
    assert_eq!(watch.probes.filtered(server.pid()).unwrap(), counts(&[("monitor", 500)]));

    // Another account on the connection: from there on the rules are asked here.
    server.run("0\tcommand\t1\t17\tmon\tweb\t-\t-\t0");
    server.run(&pings(0, "app", 7));
    server.run(&pings(0, "mon", 5));
    assert_eq!(watch.events(8).iter().filter(|event| event.command == Some(PING)).count(), 7);
    assert_eq!(watch.filtered, counts(&[("monitor", 15)]));
    assert_eq!(watch.probes.filtered(server.pid()).unwrap(), counts(&[("monitor", 500)]));
}

#[test]
fn one_of_so_many_is_kept_and_marked() {
    let policy = rules(&["{ name = 'tenth', command = 'Ping', action = 'sample', one_in = 10 }"]);
    let (mut server, mut watch) = (Server::start(), Watch::with_rules(&Config::default(), policy));
    let _attachment = watch.attach(&server);
    server.run(&pings(0, "app", 20_000));
    let kept = watch.rest();
    assert!(kept.iter().all(|event| event.sampled_one_in == Some(10)));
    // Six standard deviations.
    assert!((1746..=2254).contains(&kept.len()), "{}", kept.len());
    let left_out = watch.probes.filtered(server.pid()).unwrap()["tenth"];
    assert_eq!(left_out + kept.len() as u64, 20_000);
    assert_eq!(watch.filtered, BTreeMap::new(), "the kernel chose");
}

#[test]
fn the_kernel_goes_on_without_a_collector_and_another_one_brings_other_rules() {
    let pins = Pins::new();
    let first = rules(&["{ name = 'pings', command = 'Ping', action = 'skip' }"]);
    let mut server = Server::start();
    let mut watch = Watch::with_rules(&pins.config(), first);
    watch.attach(&server).leave();
    server.run(&pings(0, "app", 100));
    drop(watch);
    server.run(&pings(0, "app", 200));

    let second = rules(&[
        "{ name = 'init', command = 'Init_db', action = 'skip' }",
        "{ name = 'quiet', command = 'Ping', action = 'skip' }",
    ]);
    let mut watch = Watch::with_rules(&pins.config(), second);
    watch.attach(&server).leave();
    server.run(&pings(0, "app", 50));
    server.run("0\tcommand\t1\t3\tapp\tweb\tshop\tSELECT 1\t0");
    assert_eq!(watch.events(1).len(), 1);
    // Each under the name of its time.
    assert_eq!(watch.probes.filtered(server.pid()).unwrap(), counts(&[("pings", 300), ("quiet", 50)]));

    drop(watch);
    let mut watch = Watch::new(&pins.config());
    let _attachment = watch.attach(&server);
    server.run(&pings(0, "app", 3));
    assert_eq!(watch.events(3).len(), 3);
    assert_eq!(watch.probes.filtered(server.pid()).unwrap(), counts(&[("pings", 300), ("quiet", 50)]));
}
