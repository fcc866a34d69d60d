//! The power fails: an ext4 in a file is shut down under a build, without what was not synced, and mounted again.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cache::testing::{Need, needs};

use crate::live::{Live, hashes};
use crate::world::run;

/// An ext4 in a file, mounted.
struct Disk<'a> {
    image: &'a Path,
    at: &'a Path,
}

impl Disk<'_> {
    fn mount(&self) {
        run("mount", &["-o", "loop", self.image.to_str().unwrap(), self.at.to_str().unwrap()]);
    }

    /// Ends it under a build as a power failure does: what is in memory alone is lost (`EXT4_IOC_SHUTDOWN`, `NOLOGFLUSH`).
    fn fail_under(&self, running: &mut Child) {
        let script = format!(
            "open(my $f, '<', '{}') or die; my $how = pack('I', 2); ioctl($f, 0x8004587d, $how) or die \"$!\"",
            self.at.display()
        );
        run("perl", &["-e", &script]);
        let _ = running.kill();
        running.wait().unwrap();
        self.unmount();
    }

    fn unmount(&self) {
        let start = Instant::now();
        while !Command::new("umount").arg(self.at).stderr(Stdio::null()).status().unwrap().success() {
            assert!(start.elapsed() < Duration::from_secs(20), "it stays in use");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Tools that are still dying have it mounted in a namespace of theirs.
        while !run("losetup", &["-j", self.image.to_str().unwrap()]).is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20), "it stays mounted somewhere");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ =
            Command::new("umount").args(["-l".as_ref(), self.at.as_os_str()]).stderr(Stdio::null()).status();
    }
}

/// Fails at 15 moments of a build that begins with what `prepare` made; the next build is to be right each time.
fn fail_at_moments(live: &Live, prepare: &dyn Fn()) {
    let (image, at) = (live.world.path("disk"), live.world.path("mnt"));
    fs::create_dir_all(&at).unwrap();
    let store = at.join("store");
    let build = |title: &str| {
        let title = format!("image.title={title}");
        let mut command = live.command(&["build", &live.spec(), "--out", "mnt/out", "--set", &title]);
        command.env("STAGEGRAPH_STORE", &store).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let mut expected = None;
    for moment in 0..15u64 {
        let script = format!("rm -f '{0}'; truncate -s 64M '{0}'; mkfs.ext4 -q '{0}'", image.display());
        run("sh", &["-ec", &script]);
        let disk = Disk { image: &image, at: &at };
        disk.mount();
        prepare();
        let mut running = build("New").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 + moment * moment * 8));
        disk.fail_under(&mut running);
        disk.mount();
        // What was published is old or new, or nothing, and whole.
        let output = build("New").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "moment {moment}: {text}");
        let now = hashes(&at.join("out/tiny"));
        assert_eq!(*expected.get_or_insert_with(|| now.clone()), now, "moment {moment}");
        let verify = live.command(&["store", "verify"]).env("STAGEGRAPH_STORE", &store).output().unwrap();
        assert_eq!(
            verify.status.code(),
            Some(0),
            "moment {moment}: {}",
            String::from_utf8_lossy(&verify.stderr)
        );
        disk.unmount();
    }
}

#[test]
fn a_power_failure_at_any_moment_of_the_first_build_leaves_a_store_that_can_be_used() {
    if !needs(Need::Root) {
        return;
    }
    fail_at_moments(&Live::new(), &|| {});
}

#[test]
fn a_power_failure_at_any_moment_of_a_later_build_loses_nothing_that_was_published() {
    if !needs(Need::Root) {
        return;
    }
    let live = Live::new();
    let store = live.world.path("mnt/store");
    fail_at_moments(&live, &|| {
        let mut first =
            live.command(&["build", &live.spec(), "--out", "mnt/out", "--set", "image.title=Old"]);
        assert!(first.env("STAGEGRAPH_STORE", &store).stdout(Stdio::null()).status().unwrap().success());
        run("sync", &["-f", store.to_str().unwrap()]);
    });
}
