//! The same files over NFS, version 3, read-only (RFC 1813): a root that stays on the server while a machine runs from it.
//!
//! NFS and its MOUNT protocol are at one port, over TCP; a client is told both, and nobody has to ask a portmapper. No name that a client
//! sends gets to a file system.

mod objects;
mod procedures;
mod question;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nfs3_types::rpc::{
    accept_stat_data, accepted_reply, auth_stat, msg_body, rejected_reply, reply_body, rpc_msg,
};
use nfs3_types::xdr_codec::Pack;
use nfs3_types::{mount, nfs3, rpc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use self::procedures::{Refused, Sent};
use self::question::Call;
use crate::connections::{self, Limits, plain};
use crate::room::Room;
use crate::site::Site;

/// Connections at once: in all, and from one address. A machine has one.
const CONNECTIONS: Limits = Limits { all: 512, each: 16 };

/// Bytes of a question, at most: none has anything to write.
const QUESTION: usize = 64 << 10;

/// Parts of a question, at most.
const PARTS: usize = 64;

/// Files whose reading is counted, for each connection.
const FILES: usize = 64;

/// How long a question may take to arrive once it has begun.
const ASKING: Duration = Duration::from_secs(15);

/// How long a client may ask nothing: Linux's ends a connection itself that was idle for five minutes.
const IDLE: Duration = Duration::from_secs(1200);

/// The mark of the last part of a question (RFC 5531, 11).
const LAST: u32 = 1 << 31;

/// A reply that is accepted, with what is said of it; results go behind it.
fn accepted(xid: u32, reply_data: accept_stat_data) -> rpc_msg<'static, 'static> {
    let reply = accepted_reply { verf: rpc::opaque_auth::default(), reply_data };
    rpc_msg { xid, body: msg_body::REPLY(reply_body::MSG_ACCEPTED(reply)) }
}

fn denied(xid: u32, why: rejected_reply) -> rpc_msg<'static, 'static> {
    rpc_msg { xid, body: msg_body::REPLY(reply_body::MSG_DENIED(why)) }
}

/// Answers a question; what is no question has no answer. Tells what was read of a file.
fn respond(site: &Site, record: &[u8]) -> Option<(Vec<u8>, Option<Sent>)> {
    let call = Call::read(record)?;
    let (xid, words) = (call.xid, call.arguments.clone());
    let mut result = Vec::new();
    let mut sent = None;
    let head = match call {
        Call { is_known: false, .. } => denied(xid, rejected_reply::rpc_mismatch(2, 2)),
        Call { is_credible: false, .. } => denied(xid, rejected_reply::auth_error(auth_stat::AUTH_BADCRED)),
        Call { program: nfs3::PROGRAM | mount::PROGRAM, version, .. } if version != nfs3::VERSION => {
            accepted(xid, accept_stat_data::PROG_MISMATCH { low: nfs3::VERSION, high: nfs3::VERSION })
        }
        Call { program: program @ (nfs3::PROGRAM | mount::PROGRAM), procedure, .. } => {
            let done = match program {
                nfs3::PROGRAM => procedures::nfs(site, procedure, words, &mut result),
                _ => procedures::mount(site, procedure, words, &mut result).map(|()| None),
            };
            let said = match done {
                Ok(read) => {
                    sent = read;
                    accept_stat_data::SUCCESS
                }
                Err(Refused::Unknown) => accept_stat_data::PROC_UNAVAIL,
                Err(Refused::Garbage) => accept_stat_data::GARBAGE_ARGS,
            };
            accepted(xid, said)
        }
        Call { .. } => accepted(xid, accept_stat_data::PROG_UNAVAIL),
    };
    let length = u32::try_from(head.packed_size() + result.len()).ok().filter(|length| *length < LAST)?;
    let mut answer = Vec::with_capacity(4 + length as usize);
    answer.extend((LAST | length).to_be_bytes());
    head.pack(&mut answer).ok()?;
    answer.append(&mut result);
    Some((answer, sent))
}

/// Answers a question with the bytes that go back; what is no question has no answer.
pub fn answer(site: &Site, record: &[u8]) -> Option<Vec<u8>> {
    respond(site, record).map(|(answer, _)| answer)
}

/// Takes connections until the listener fails.
pub(crate) async fn serve(room: Arc<Room>, listener: TcpListener) -> io::Result<()> {
    connections::take(listener, CONNECTIONS, move |stream| connection(Arc::clone(&room), stream)).await
}

async fn connection(room: Arc<Room>, mut stream: TcpStream) -> Result<(), connections::Ended> {
    let client = plain(stream.peer_addr()?);
    // How much of which file, and whether it was said that one cannot be read.
    let mut files: BTreeMap<String, (u64, bool)> = BTreeMap::new();
    while let Some(record) = next(&mut stream).await? {
        let site = room.site();
        let answered = tokio::task::spawn_blocking(move || respond(&site, &record)).await?;
        let Some((answer, sent)) = answered else { return Err("what was sent is no question".into()) };
        stream.write_all(&answer).await?;
        let Some(Sent { path, role, size, bytes, failed }) = sent else { continue };
        if !files.contains_key(&path) {
            // A client that reads one file after the other is no machine that boots.
            if files.len() == FILES {
                files.clear();
            }
            tracing::info!(%client, path, "nfs");
            room.machines().began_nfs(client.ip(), role, &path, size);
        }
        let (read, is_said) = files.entry(path.clone()).or_default();
        if let Some(why) = failed.filter(|_| !std::mem::replace(is_said, true)) {
            room.say(&format!(
                "{path} cannot be read: {why}; {} has errors of input and output",
                client.ip()
            ));
        }
        *read += bytes;
        room.machines().moved(client.ip(), &path, *read);
    }
    Ok(())
}

/// Reads the next question; `None` where the client has gone, or has been silent for long.
async fn next(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 4];
    let first = tokio::time::timeout(IDLE, stream.read(&mut head)).await;
    let read = match first {
        Err(_) => return Ok(None),
        Ok(read) => read?,
    };
    if read == 0 {
        return Ok(None);
    }
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(ASKING, rest(stream, head, read)).await.map_err(late)?.map(Some)
}

/// Reads the rest of a question, of whose first part so many bytes are there.
async fn rest(stream: &mut TcpStream, mut head: [u8; 4], read: usize) -> io::Result<Vec<u8>> {
    stream.read_exact(&mut head[read..]).await?;
    let mut record = Vec::new();
    for _ in 0..PARTS {
        let part = u32::from_be_bytes(head);
        let length = (part & !LAST) as usize;
        // What is said of its length is believed as far as a question goes, and no farther.
        if record.len() + length > QUESTION {
            return Err(io::Error::other(format!("a question of {length} bytes")));
        }
        let before = record.len();
        record.resize(before + length, 0);
        stream.read_exact(&mut record[before..]).await?;
        if part & LAST != 0 {
            return Ok(record);
        }
        stream.read_exact(&mut head).await?;
    }
    Err(io::Error::other("a question of too many parts"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tests::set;

    /// The words of a call behind its number.
    fn call(program: u32, version: u32, procedure: u32, arguments: &[u8]) -> Vec<u8> {
        let words = [7, 0, 2, program, version, procedure, 0, 0, 0, 0];
        let mut record: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_be_bytes()).collect();
        record.extend(arguments);
        record
    }

    fn opaque(bytes: &[u8]) -> Vec<u8> {
        let mut packed = (bytes.len() as u32).to_be_bytes().to_vec();
        packed.extend(bytes);
        packed.resize(packed.len().next_multiple_of(4), 0);
        packed
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect()
    }

    fn site() -> Site {
        Site::new(vec![set("a", "11")])
    }

    /// Returns what is behind the head of a reply that was accepted: where it lies in a record is in RFC 5531.
    fn asked(program: u32, procedure: u32, arguments: &[u8]) -> Vec<u8> {
        let answer = answer(&site(), &call(program, 3, procedure, arguments)).unwrap();
        let head = words(&answer[..28]);
        assert_eq!(head[0], LAST | (answer.len() as u32 - 4), "the length");
        assert_eq!(head[1..], [7, 1, 0, 0, 0, 0], "accepted");
        answer[28..].to_vec()
    }

    fn mounted(path: &str) -> Vec<u8> {
        let answer = asked(mount::PROGRAM, 1, &opaque(path.as_bytes()));
        assert_eq!(words(&answer)[..2], [0, 40], "{path}");
        answer[8..48].to_vec()
    }

    #[test]
    fn a_file_is_found_and_read() {
        let folder = mounted("/a/netboot");
        let looked = asked(nfs3::PROGRAM, 3, &[opaque(&folder), opaque(b"x.vmlinuz")].concat());
        assert_eq!(words(&looked)[..2], [0, 40]);
        let file = &looked[8..48];
        let read = |at: u64, count: u32| {
            let arguments = [&opaque(file)[..], &at.to_be_bytes(), &count.to_be_bytes()].concat();
            let answer = asked(nfs3::PROGRAM, 6, &arguments);
            // Status, attributes (88 bytes behind their mark), count, end, length.
            let [count, eof, length] = words(&answer[92..104])[..] else { unreachable!() };
            assert_eq!((words(&answer)[..2].to_vec(), count), (vec![0, 1], length));
            (String::from_utf8(answer[104..104 + length as usize].to_vec()).unwrap(), eof == 1)
        };
        assert_eq!(read(0, 6), ("kernel".to_owned(), false));
        assert_eq!(read(10, 100), ("11".to_owned(), true));
        assert_eq!(read(12, 100), (String::new(), true));
        assert_eq!(read(u64::MAX, u32::MAX), (String::new(), true));
    }

    #[test]
    fn a_file_that_goes_bad_while_it_is_read_is_said_once() {
        let folder = cache::testing::Folder::new();
        let path = folder.path().join("x.vmlinuz");
        std::fs::write(&path, "kernel").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        let (content, role) = (crate::site::Content::File(file), crate::Role::Kernel);
        let entry = crate::Entry { content, size: 6, digests: None, modified, role };
        let mut set = set("a", "11");
        set.files.insert("netboot/x.vmlinuz".to_owned(), Arc::new(entry));
        let (said, heard) = std::sync::mpsc::channel();
        let room = Arc::new(Room::new(vec![set], move |text| said.send(text.to_owned()).unwrap()));

        let file = objects::Object::at(&room.site(), "a/netboot/x.vmlinuz").unwrap().handle();
        let arguments = [&opaque(&file)[..], &[0; 8], &6_u32.to_be_bytes()].concat();
        let record = call(nfs3::PROGRAM, 3, 6, &arguments);
        let question = [&(LAST | record.len() as u32).to_be_bytes()[..], &record].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let ends = tokio::spawn(connection(Arc::clone(&room), stream));
            for status in [0, 5, 5] {
                if status == 5 {
                    std::fs::write(&path, "ker").unwrap();
                }
                client.write_all(&question).await.unwrap();
                let mut head = [0; 32];
                client.read_exact(&mut head).await.unwrap();
                assert_eq!(words(&head)[7], status);
                let mut rest = vec![0; (words(&head)[0] & !LAST) as usize - 28];
                client.read_exact(&mut rest).await.unwrap();
            }
            drop(client);
            assert!(ends.await.unwrap().is_ok());
        });
        drop(room);
        let said: Vec<String> = heard.iter().collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("a/netboot/x.vmlinuz cannot be read: "), "{said:?}");
    }

    #[test]
    fn folders_are_listed_in_parts_that_fit() {
        let folder = mounted("/a/netboot");
        let mut names = Vec::new();
        let mut at = 0_u64;
        let mut parts = 0;
        loop {
            let arguments =
                [&opaque(&folder)[..], &at.to_be_bytes(), &[0; 8], &200_u32.to_be_bytes()].concat();
            let answer = asked(nfs3::PROGRAM, 16, &arguments);
            assert!(answer.len() <= 200, "{}", answer.len());
            let mut rest = question::Words::of(&answer[92 + 8..]);
            while rest.number() == Some(1) {
                rest.long().unwrap();
                names.push(String::from_utf8(rest.bytes(255).unwrap().to_vec()).unwrap());
                at = rest.long().unwrap();
            }
            parts += 1;
            if rest.number() == Some(1) {
                break;
            }
        }
        assert!(parts > 1, "{parts}");
        assert_eq!(names, [".", "..", "boot.ipxe", "http.ipxe", "snponly.efi", "undionly.kpxe", "x.vmlinuz"]);
        let tiny = [&opaque(&folder)[..], &[0; 16], &8_u32.to_be_bytes()].concat();
        assert_eq!(words(&asked(nfs3::PROGRAM, 16, &tiny))[0], nfs3::nfsstat3::NFS3ERR_TOOSMALL as u32);
    }

    #[test]
    fn nothing_is_ever_written() {
        // RFC 1813: behind the status, what is known of what was before and after.
        let lengths =
            [(2, 3), (7, 3), (8, 3), (9, 3), (10, 3), (11, 3), (12, 3), (13, 3), (14, 5), (15, 4), (21, 3)];
        for (procedure, length) in lengths {
            let answer = words(&asked(nfs3::PROGRAM, procedure, &opaque(&mounted("/a"))));
            assert_eq!(answer[0], nfs3::nfsstat3::NFS3ERR_ROFS as u32, "{procedure}");
            assert_eq!(answer.len(), length, "{procedure}");
        }
    }

    #[test]
    fn what_is_asked_wrongly_is_told_so() {
        let site = site();
        let said = |record: &[u8]| words(&answer(&site, record).unwrap())[2..].to_vec();
        assert_eq!(said(&call(nfs3::PROGRAM, 3, 99, &[]))[4], 3, "no such procedure");
        assert_eq!(said(&call(nfs3::PROGRAM, 4, 0, &[]))[4..], [2, 3, 3], "another version");
        assert_eq!(said(&call(100_227, 3, 0, &[]))[4], 1, "no such program");
        assert_eq!(said(&call(nfs3::PROGRAM, 3, 6, &opaque(&[0; 40])))[4], 0);
        assert_eq!(said(&call(nfs3::PROGRAM, 3, 6, &[0, 0, 0, 64]))[4], 4, "no arguments");
        let mut old = call(nfs3::PROGRAM, 3, 0, &[]);
        old[11] = 1;
        assert_eq!(said(&old)[1..], [1, 0, 2, 2]);
        let mut kerberos = call(nfs3::PROGRAM, 3, 0, &[]);
        kerberos[27] = 6;
        assert_eq!(said(&kerberos)[1..], [1, 1, 1]);
        let long = opaque(&[0; 401]);
        let mut bragging = call(nfs3::PROGRAM, 3, 0, &[])[..28].to_vec();
        bragging.extend([&long[..], &[0; 8]].concat());
        assert_eq!(said(&bragging)[1..], [1, 1, 1], "a credential of more than 400 bytes");
        // Lengths of 4 GiB, in who asks and in what is asked.
        let mut huge = call(nfs3::PROGRAM, 3, 1, &[0xff; 4]);
        assert_eq!(said(&huge)[4], 4);
        huge[28..32].fill(0xff);
        assert!(answer(&site, &huge).is_none());
        assert!(
            answer(&site, &[]).is_none() && answer(&site, &[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0]).is_none()
        );
        let long = format!("/{}", "a".repeat(1024));
        for (path, error) in [("/x", 2), ("/a/x.iso", 20), ("/a/\u{0}", 2), (long.as_str(), 63)] {
            assert_eq!(words(&asked(mount::PROGRAM, 1, &opaque(path.as_bytes()))), [error], "{path}");
        }
    }

    #[test]
    fn a_handle_that_leads_nowhere_is_stale() {
        let mut handle = mounted("/a");
        handle[20] ^= 1;
        assert_eq!(words(&asked(nfs3::PROGRAM, 1, &opaque(&handle))), [nfs3::nfsstat3::NFS3ERR_STALE as u32]);
        let bad = asked(nfs3::PROGRAM, 4, &opaque(&[1; 8]));
        assert_eq!(words(&bad), [nfs3::nfsstat3::NFS3ERR_BADHANDLE as u32, 0]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_sent_ends_the_server(
            (program, procedure) in (proptest::sample::select(vec![nfs3::PROGRAM, mount::PROGRAM]), 0..30_u32),
            handle in proptest::sample::select(vec!["/", "/a", "/a/netboot", "/a/x.iso"]),
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            cut in 0..400_usize,
        ) {
            let site = site();
            let found = objects::Object::at(&site, handle).unwrap().handle();
            for arguments in [[opaque(&found), rest.clone()].concat(), rest] {
                let mut record = call(program, 3, procedure, &arguments);
                record.truncate(record.len().saturating_sub(cut % 40));
                if let Some(answer) = answer(&site, &record) {
                    proptest::prop_assert!(answer.len() < 40_000 && answer.len().is_multiple_of(4));
                }
            }
        }
    }
}
