//! GRUB's words and conditions: what GRUB makes of a text, in QEMU, against what the product makes of it.

use std::fmt::Write as _;
use std::process::Command;

use stagegraph::formats::menus::{Handed, parse_grub};

use crate::vm::{Firmware, LOADED, Vm};

/// Set in front of every text, on both sides.
const PRELUDE: &str = "set live='root=live:X cdroot'\nset blank=' b  c '\nset empty=\nset only='  '\n";

/// Parts of words; what is drawn from them at random is always a text without mistakes.
const PARTS: [&str; 30] = [
    "a",
    "b=c",
    "/k",
    "x,y",
    "#",
    "$live",
    "${live}",
    "\"$live\"",
    "\"${live} z\"",
    "'$live'",
    "$empty",
    "\"$empty\"",
    "$nothing",
    "\"\"",
    "''",
    "$blank",
    "\"$blank\"",
    "$only",
    "\\$live",
    "\\ ",
    "\\\"",
    "\\'",
    "\\;",
    "\\\\",
    "\"\\\"\"",
    "\"x\\y\"",
    "\"\\$live\"",
    "'a\\'",
    "(d)",
    "\\{",
];

/// What stands between words.
const GAPS: [&str; 8] = [" ", " ", " ", "  ", "\t", " \\\n ", "\\\n", "\r "];

/// Draws texts: the same ones each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    /// A command with up to seven words of up to three parts.
    fn command(&mut self) -> String {
        let mut text = "linux /k".to_owned();
        for _ in 0..=self.below(7) {
            text.push_str(GAPS[self.below(GAPS.len())]);
            for _ in 0..=self.below(3) {
                text.push_str(PARTS[self.below(PARTS.len())]);
            }
        }
        text + ["\n", "\r\n", ";\n", " # $ 'more\n"][self.below(4)]
    }
}

/// The words of every kernel's line, as the product reads them.
fn ours(text: &str) -> Vec<Vec<String>> {
    // What is on the ISO.
    let mut is_there = |path: &str| Some(matches!(path, "/0.cfg" | "/boot"));
    let menu = parse_grub(&format!("{PRELUDE}{text}"), &Handed::new(), &mut is_there);
    assert!(menu.problems.is_empty(), "{:?}: {text}", menu.problems);
    menu.entries
        .into_iter()
        .map(|entry| std::iter::once(entry.kernel.form).chain(entry.words).collect())
        .collect()
}

/// GRUB itself splits fixed and drawn texts, and comes to the same words.
#[test]
fn grub_splits_the_same_texts_into_the_same_words() {
    let mut draw = Draw(14);
    let mut texts: Vec<String> = (0..60).map(|_| draw.command()).collect();
    texts.extend(
        [
            "set x=y z\nlinux $x\nset \"q=1 2\"\nlinux $q \"$q\"\nq=5\nlinux $q\n",
            "set v=\"\\\"x\"\nlinux $v\nset v='a\\b'\nlinux $v \"$v\"\nunset v\nlinux a $v\n",
            "set v=\"$live\"\nlinux a$v\nset v=$live\nlinux a$v\n",
            "if true; then\nlinux a; linux b # c\nfi\n",
            "linux a \\\n# b \\\n c 'd\n#e\nf'\nlinux a \\\n #b \\\nlinux c\n",
            "if [ \"$empty\" = x ]; then\nlinux a\nelif [ \"$live\" ]; then linux b\nelse\nlinux c\nfi\n",
            "if [ -z \"$empty\" -a ! \"$live\" = x ]; then\nlinux a\nfi\nif [ 1 = 2 -o 2 -gt 1 ]; then\nlinux b\nfi\n",
            "if [ -f /0.cfg ]; then\nlinux a\nfi\nif [ -e /gone ]; then\nlinux b\nfi\nif [ -d /boot ]; then\nlinux c\nfi\n",
            "for i in 1 \"2 3\" $live; do\nlinux $i x\ndone\nlinux $i\n",
            "function both {\nlinux $1 $2\nif [ $1 = a ]; then\nreturn\nfi\nlinux $2\n}\nboth a b\nboth c 'd e'\nlinux [$1]\n",
            "set p=1\nif true; then\nset p=2\nfi\nif false; then\nset p=3\nfi\nlinux $p\n",
            "for i in 1 2 3 4; do\nif [ $i = 2 ]; then continue; fi\nif [ $i = 4 ]; then break; fi\nlinux $i\ndone\nlinux end\n",
            "for i in 1 2; do\nfor j in a b; do\nlinux $i$j\nbreak 2\ndone\nlinux no\ndone\nlinux end\n",
            "set n=1\nwhile [ $n != 3 ]; do\nlinux $n\nif [ $n = 1 ]; then set n=2; else set n=3; fi\ndone\nuntil [ $n = 4 ]; do\nset n=4\ndone\nlinux $n\n",
            "function f {\nshift\nlinux $1 $2\nshift 2\nlinux [$1]\n}\nf a b c d\n",
            "if ! [ -f /gone ]; then\nlinux a\nfi\nif ! true; then\nlinux b\nelse\nlinux c\nfi\n",
            "linux 'a\\\nb' \"c\\\nd\" \"e\nf\"\n",
        ]
        .map(str::to_owned),
    );
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("boot/grub")).unwrap();
    let mut menu = "serial --unit=0 --speed=115200\nterminal_output serial\n\
        function show { echo \"(\"; for w in \"$@\"; do echo \"[$w]\"; done; echo \")\"; }\n"
        .to_owned();
    for (index, text) in texts.iter().enumerate() {
        std::fs::write(root.join(format!("{index}.cfg")), text.replace("linux", "show")).unwrap();
        write!(menu, "echo \"TEXT {index}\"\n{PRELUDE}source /{index}.cfg\n").unwrap();
    }
    menu.push_str("echo \"TEXT none\"\necho LAST\nhalt\n");
    std::fs::write(root.join("boot/grub/grub.cfg"), menu).unwrap();
    let iso = folder.path().join("menu.iso");
    let made = Command::new("grub-mkrescue")
        .args(["-d", "/usr/lib/grub/i386-pc", "-o"])
        .args([&iso, &root])
        .output()
        .expect("grub-mkrescue starts; `make test` installs it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut vm = Vm::start(Firmware::Bios, 256, &["-cdrom", iso.to_str().unwrap()]);
    vm.wait_for("TEXT 0", LOADED);
    for (index, text) in texts.iter().enumerate() {
        let printed = vm.wait_for("TEXT ", LOADED).replace('\r', "");
        let (_, printed) = printed.split_once('\n').unwrap();
        // What stands on the line after a comment's is a command, of whatever name was drawn.
        let printed: String = printed
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("error: can't find command"))
            .collect();
        let expected: String = ours(text)
            .iter()
            .map(|words| {
                let words: String = words.iter().map(|word| format!("[{word}]\n")).collect();
                format!("(\n{words})\n")
            })
            .collect();
        assert_eq!(printed.trim_end_matches("TEXT "), expected, "text {index}: {text:?}");
    }
    vm.wait_for("LAST", LOADED);
}
