//! Without root nothing can be captured; the rest runs, and says so.

use std::process::Command;

use whence_e2e::{Api, Whence, whence};

#[tokio::test(flavor = "multi_thread")]
async fn without_root_it_says_what_is_missing_and_runs_the_rest() {
    use std::os::unix::fs::PermissionsExt as _;

    let null = std::fs::metadata("/dev/null").unwrap().permissions().mode();
    assert_eq!(
        null & 0o666,
        0o666,
        "on this machine nobody but root can use /dev/null; mend it with chmod 666"
    );
    let data = tempfile::tempdir().unwrap();
    let owned = Command::new("chown").args(["nobody"]).arg(data.path()).status().unwrap();
    assert!(owned.success(), "this test must run as root, to run Whence as somebody else");
    // Somebody else may not go where the program lies.
    let program = data.path().join("whence");
    std::fs::copy(whence::program().unwrap(), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(program);
    command
        .args(["up", "--listen=127.0.0.1:0"])
        .arg(format!("--data={}", data.path().join("data").display()));
    command.env("WHENCE_CACHE", whence_engine::cache_directory()).current_dir(data.path());
    let whence = Whence::start_command(command, &data.path().join("data")).unwrap();
    let lines = whence.lines();
    assert!(lines.iter().any(|line| line.contains("capturing needs root")), "{lines:?}");
    let api = Api::new(&whence).unwrap();
    assert_eq!(api.events(&[]).await.unwrap(), Vec::<serde_json::Value>::new());
    assert!(whence.stop().unwrap().success());
}
