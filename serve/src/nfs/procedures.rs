//! The procedures of NFS version 3 and of its MOUNT protocol (RFC 1813), as far as they read.

use nfs3_types::mount::{self, MOUNT_PROGRAM, fhandle3, mountres3, mountres3_ok, mountstat3};
use nfs3_types::nfs3::{
    self, ACCESS3res, ACCESS3resok, FSF3_HOMOGENEOUS, FSINFO3res, FSINFO3resok, FSSTAT3res, FSSTAT3resok,
    GETATTR3res, GETATTR3resok, LOOKUP3res, LOOKUP3resok, NFS_PROGRAM, Nfs3Option, Nfs3Result, PATHCONF3res,
    PATHCONF3resok, READ3res, READ3resok, READDIR3res, READDIR3resok, READDIRPLUS3res, READDIRPLUS3resok,
    cookieverf3, dirlist3, dirlistplus3, entry3, entryplus3, fattr3, filename3, nfs_fh3, nfsstat3, nfstime3,
};
use nfs3_types::xdr_codec::{BoundedList, List, Opaque, Pack, Void};

use super::objects::{HANDLE, Object};
use super::question::Words;
use crate::site::{Role, Site};

/// Bytes of one answer to a read, at most: blocks of a squashfs are as large, and so many are held for each client that does not take them.
const LARGEST: u32 = 128 << 10;

/// Bytes of a listing, at most.
const LISTING: u32 = 32 << 10;

/// Bytes of a list without its entries: a status, attributes, a verifier, and whether it ends.
const AROUND: usize = 104;

/// Bytes of a name, and of a path.
const NAME: usize = 255;
const PATH: usize = mount::MNTPATHLEN;

/// What is longer than it may be is told so: it is within a question in any case.
const ANY: usize = usize::MAX;

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    /// The file, as events name it.
    pub(super) path: String,
    /// What it is for.
    pub(super) role: Role,
    /// Its size.
    pub(super) size: u64,
    /// Bytes that were read.
    pub(super) bytes: u64,
    /// Why they were not.
    pub(super) failed: Option<String>,
}

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no such procedure.
    Unknown,
    /// The arguments are none.
    Garbage,
}

/// Writes a result down.
fn pack(result: &impl Pack, answer: &mut Vec<u8>) -> Result<(), Refused> {
    answer.reserve(result.packed_size());
    // A vector takes everything.
    result.pack(answer).map(drop).map_err(|_| Refused::Garbage)
}

fn number(number: u32, answer: &mut Vec<u8>) {
    answer.extend(number.to_be_bytes());
}

/// Answers a call of the MOUNT protocol.
pub(super) fn mount(
    site: &Site,
    procedure: u32,
    mut words: Words<'_>,
    answer: &mut Vec<u8>,
) -> Result<(), Refused> {
    let procedure = MOUNT_PROGRAM::try_from(procedure).map_err(|_| Refused::Unknown)?;
    match procedure {
        MOUNT_PROGRAM::MOUNTPROC3_NULL
        | MOUNT_PROGRAM::MOUNTPROC3_UMNT
        | MOUNT_PROGRAM::MOUNTPROC3_UMNTALL => Ok(()),
        // Nobody is remembered who mounts.
        MOUNT_PROGRAM::MOUNTPROC3_DUMP => pack(&List::<Void>(Vec::new()), answer),
        MOUNT_PROGRAM::MOUNTPROC3_EXPORT => {
            let exports = site.sets().iter().map(|set| mount::export_node {
                ex_dir: mount::dirpath(Opaque::owned(format!("/{}", set.name).into_bytes())),
                ex_groups: List::default(),
            });
            pack(&List(exports.collect()), answer)
        }
        MOUNT_PROGRAM::MOUNTPROC3_MNT => {
            let path = words.bytes(ANY).ok_or(Refused::Garbage)?;
            let object = std::str::from_utf8(path).ok().and_then(|path| Object::at(site, path));
            let result = match object {
                _ if path.len() > PATH => mountres3::Err(mountstat3::MNT3ERR_NAMETOOLONG),
                None => mountres3::Err(mountstat3::MNT3ERR_NOENT),
                Some(object) if !object.is_folder() => mountres3::Err(mountstat3::MNT3ERR_NOTDIR),
                Some(object) => mountres3::Ok(mountres3_ok {
                    fhandle: fhandle3(Opaque::owned(object.handle().to_vec())),
                    // AUTH_UNIX, and nothing.
                    auth_flavors: vec![1, 0],
                }),
            };
            pack(&result, answer)
        }
    }
}

/// How many words behind the status of a procedure that would change something say that nothing is told of what was before and after.
fn of_change(procedure: NFS_PROGRAM) -> Option<usize> {
    match procedure {
        NFS_PROGRAM::NFSPROC3_SETATTR
        | NFS_PROGRAM::NFSPROC3_WRITE
        | NFS_PROGRAM::NFSPROC3_CREATE
        | NFS_PROGRAM::NFSPROC3_MKDIR
        | NFS_PROGRAM::NFSPROC3_SYMLINK
        | NFS_PROGRAM::NFSPROC3_MKNOD
        | NFS_PROGRAM::NFSPROC3_REMOVE
        | NFS_PROGRAM::NFSPROC3_RMDIR
        | NFS_PROGRAM::NFSPROC3_COMMIT => Some(2),
        NFS_PROGRAM::NFSPROC3_LINK => Some(3),
        NFS_PROGRAM::NFSPROC3_RENAME => Some(4),
        _ => None,
    }
}

/// Answers a call of NFS; tells what was read.
pub(super) fn nfs(
    site: &Site,
    procedure: u32,
    mut words: Words<'_>,
    answer: &mut Vec<u8>,
) -> Result<Option<Sent>, Refused> {
    let procedure = NFS_PROGRAM::try_from(procedure).map_err(|_| Refused::Unknown)?;
    if procedure == NFS_PROGRAM::NFSPROC3_NULL {
        return Ok(None);
    }
    if let Some(nothing) = of_change(procedure) {
        number(nfsstat3::NFS3ERR_ROFS as u32, answer);
        (0..nothing).for_each(|_| number(0, answer));
        return Ok(None);
    }
    let handle = words.bytes(nfs3::NFS3_FHSIZE).ok_or(Refused::Garbage)?;
    let found = Object::of_handle(site, handle);
    let object = match found {
        Some(object) => object,
        None => {
            let status =
                if handle.len() == HANDLE { nfsstat3::NFS3ERR_STALE } else { nfsstat3::NFS3ERR_BADHANDLE };
            number(status as u32, answer);
            // Nothing is known of it; of GETATTR, nothing is said behind the status.
            if procedure != NFS_PROGRAM::NFSPROC3_GETATTR {
                number(0, answer);
            }
            return Ok(None);
        }
    };
    let attributes = object.attributes(site);
    let known = Nfs3Option::Some(attributes.clone());
    match procedure {
        NFS_PROGRAM::NFSPROC3_GETATTR => {
            let result = GETATTR3resok { obj_attributes: attributes };
            pack(&GETATTR3res::Ok(result), answer)?;
        }
        NFS_PROGRAM::NFSPROC3_LOOKUP => lookup(site, (&object, known), words, answer)?,
        NFS_PROGRAM::NFSPROC3_ACCESS => {
            let asked = words.number().ok_or(Refused::Garbage)?;
            let granted = nfs3::ACCESS3_READ | if object.is_folder() { nfs3::ACCESS3_LOOKUP } else { 0 };
            let result = ACCESS3resok { obj_attributes: known, access: asked & granted };
            pack(&ACCESS3res::Ok(result), answer)?;
        }
        NFS_PROGRAM::NFSPROC3_READ => return read((&object, known), words, answer),
        NFS_PROGRAM::NFSPROC3_READDIR => list(site, (&object, known), words, answer)?,
        NFS_PROGRAM::NFSPROC3_READDIRPLUS => list_more(site, (&object, known), words, answer)?,
        NFS_PROGRAM::NFSPROC3_FSSTAT => pack(&FSSTAT3res::Ok(taken(site, known)), answer)?,
        NFS_PROGRAM::NFSPROC3_FSINFO => pack(&FSINFO3res::Ok(limits(known)), answer)?,
        NFS_PROGRAM::NFSPROC3_PATHCONF => {
            let result = PATHCONF3resok {
                obj_attributes: known,
                linkmax: 1,
                name_max: NAME as u32,
                no_trunc: true,
                chown_restricted: true,
                case_insensitive: false,
                case_preserving: true,
            };
            pack(&PATHCONF3res::Ok(result), answer)?;
        }
        // There are no links.
        _ => pack(&Nfs3Result::<Void, _>::Err((nfsstat3::NFS3ERR_INVAL, known)), answer)?,
    }
    Ok(None)
}

/// What is said of an object in front of each answer.
type Known = Nfs3Option<fattr3>;

/// What is taken of the file system, and what is free: nothing.
fn taken(site: &Site, obj_attributes: Known) -> FSSTAT3resok {
    let sizes = site.sets().iter().flat_map(|set| set.files.values()).map(|entry| entry.size);
    FSSTAT3resok {
        obj_attributes,
        tbytes: sizes.sum(),
        fbytes: 0,
        abytes: 0,
        tfiles: site.sets().iter().map(|set| set.files.len() as u64).sum(),
        ffiles: 0,
        afiles: 0,
        invarsec: 0,
    }
}

/// How much a client may ask for at once.
fn limits(obj_attributes: Known) -> FSINFO3resok {
    FSINFO3resok {
        obj_attributes,
        rtmax: LARGEST,
        rtpref: LARGEST,
        rtmult: 4096,
        wtmax: LARGEST,
        wtpref: LARGEST,
        wtmult: 4096,
        dtpref: LISTING,
        maxfilesize: i64::MAX as u64,
        time_delta: nfstime3 { seconds: 1, nseconds: 0 },
        properties: FSF3_HOMOGENEOUS,
    }
}

fn lookup(
    site: &Site,
    (folder, dir_attributes): (&Object, Known),
    mut words: Words<'_>,
    answer: &mut Vec<u8>,
) -> Result<(), Refused> {
    let name = words.bytes(ANY).ok_or(Refused::Garbage)?;
    let child = std::str::from_utf8(name).ok().and_then(|name| folder.child(site, name));
    let status = match &child {
        _ if !folder.is_folder() => nfsstat3::NFS3ERR_NOTDIR,
        None if name.len() > NAME => nfsstat3::NFS3ERR_NAMETOOLONG,
        None => nfsstat3::NFS3ERR_NOENT,
        Some(child) => {
            let result = LOOKUP3resok {
                object: nfs_fh3 { data: Opaque::owned(child.handle().to_vec()) },
                obj_attributes: Nfs3Option::Some(child.attributes(site)),
                dir_attributes,
            };
            return pack(&LOOKUP3res::Ok(result), answer);
        }
    };
    pack(&Nfs3Result::<Void, _>::Err((status, dir_attributes)), answer)
}

fn read(
    (object, known): (&Object, Known),
    mut words: Words<'_>,
    answer: &mut Vec<u8>,
) -> Result<Option<Sent>, Refused> {
    let at = words.long().ok_or(Refused::Garbage)?;
    let wanted = words.number().ok_or(Refused::Garbage)?.min(LARGEST);
    let Object::File(set, path, entry) = object else {
        let refusal = Nfs3Result::<Void, _>::Err((nfsstat3::NFS3ERR_ISDIR, known));
        return pack(&refusal, answer).map(|()| None);
    };
    let length = entry.size.saturating_sub(at).min(u64::from(wanted));
    let (path, size, role) = (format!("{}/{path}", set.name), entry.size, entry.role);
    let bytes = match entry.read(at.min(entry.size), length as usize) {
        Ok(bytes) => bytes,
        Err(error) => {
            pack(&Nfs3Result::<Void, _>::Err((nfsstat3::NFS3ERR_IO, known)), answer)?;
            return Ok(Some(Sent { path, role, size, bytes: 0, failed: Some(error.to_string()) }));
        }
    };
    let result = READ3resok {
        file_attributes: known,
        count: length as u32,
        eof: at.saturating_add(length) >= size,
        data: Opaque::borrowed(&bytes),
    };
    pack(&READ3res::Ok(result), answer)?;
    Ok(Some(Sent { path, role, size, bytes: length, failed: None }))
}

/// Returns what is behind a place in a folder: the place behind each, its name, and it.
fn behind(site: &Site, folder: &Object, at: u64) -> impl Iterator<Item = (u64, String, Object)> {
    let own = [".", ".."].into_iter().filter_map(|name| Some((name.to_owned(), folder.child(site, name)?)));
    let all: Vec<_> = own.chain(folder.children(site)).collect();
    let numbered = (1..).zip(all).map(|(number, (name, object))| (number, name, object));
    numbered.skip(usize::try_from(at).unwrap_or(usize::MAX))
}

/// Reads where a listing is to go on.
fn place(words: &mut Words<'_>) -> Option<u64> {
    let at = words.long()?;
    // What comes later comes behind what is there, so every place stays what it is.
    words.long()?;
    Some(at)
}

fn room(most: u32) -> usize {
    (most.min(LISTING) as usize).saturating_sub(AROUND)
}

/// Returns as much of a listing as fits, and whether that is all.
fn listed<T: Pack>(
    site: &Site,
    folder: &Object,
    (at, most): (u64, u32),
    entry: impl Fn(u64, Vec<u8>, &Object) -> T,
) -> Result<(List<T>, bool), nfsstat3> {
    if !folder.is_folder() {
        return Err(nfsstat3::NFS3ERR_NOTDIR);
    }
    let mut entries = BoundedList::new(room(most));
    let mut left = behind(site, folder, at).peekable();
    while let Some((number, name, object)) = left.peek() {
        if entries.try_push(entry(*number, name.clone().into_bytes(), object)).is_err() {
            break;
        }
        left.next();
    }
    let (entries, is_all) = (entries.into_inner(), left.peek().is_none());
    if entries.is_empty() && !is_all { Err(nfsstat3::NFS3ERR_TOOSMALL) } else { Ok((entries, is_all)) }
}

fn list(
    site: &Site,
    (folder, dir_attributes): (&Object, Known),
    mut words: Words<'_>,
    answer: &mut Vec<u8>,
) -> Result<(), Refused> {
    let at = place(&mut words).ok_or(Refused::Garbage)?;
    let most = words.number().ok_or(Refused::Garbage)?;
    let listed = listed(site, folder, (at, most), |cookie, name, object| entry3 {
        fileid: object.number(),
        name: filename3::from(name),
        cookie,
    });
    match listed {
        Err(status) => pack(&Nfs3Result::<Void, _>::Err((status, dir_attributes)), answer),
        Ok((entries, eof)) => {
            let (cookieverf, reply) = (cookieverf3::default(), dirlist3 { entries, eof });
            pack(&READDIR3res::Ok(READDIR3resok { dir_attributes, cookieverf, reply }), answer)
        }
    }
}

/// As [`list`], with all that is known of each.
fn list_more(
    site: &Site,
    (folder, dir_attributes): (&Object, Known),
    mut words: Words<'_>,
    answer: &mut Vec<u8>,
) -> Result<(), Refused> {
    let at = place(&mut words).ok_or(Refused::Garbage)?;
    // What names alone may take is within what all may take.
    words.number().ok_or(Refused::Garbage)?;
    let most = words.number().ok_or(Refused::Garbage)?;
    let listed = listed(site, folder, (at, most), |cookie, name, object| entryplus3 {
        fileid: object.number(),
        name: filename3::from(name),
        cookie,
        name_attributes: Nfs3Option::Some(object.attributes(site)),
        name_handle: Nfs3Option::Some(nfs_fh3 { data: Opaque::owned(object.handle().to_vec()) }),
    });
    match listed {
        Err(status) => pack(&Nfs3Result::<Void, _>::Err((status, dir_attributes)), answer),
        Ok((entries, eof)) => {
            let (cookieverf, reply) = (cookieverf3::default(), dirlistplus3 { entries, eof });
            pack(&READDIRPLUS3res::Ok(READDIRPLUS3resok { dir_attributes, cookieverf, reply }), answer)
        }
    }
}
