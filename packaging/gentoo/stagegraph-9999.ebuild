# Distributed under the terms of the GNU General Public License v2

EAPI=8

RUST_MIN_VER="1.95.0"

inherit cargo git-r3 shell-completion

DESCRIPTION="Content-addressed builds of live media: an ISO and a netboot set of the same files"
HOMEPAGE="https://wiki.gentoo.org/wiki/Catalyst"
# Where the source is cloned from; this is a place on the machine itself.
EGIT_REPO_URI="${STAGEGRAPH_REPO_URI:-file:///var/lib/stagegraph.git}"

LICENSE="GPL-2+"
# Crates
LICENSE+=" Apache-2.0 BSD BSD-2 BZIP2 CC0-1.0 CDLA-Permissive-2.0 ISC MIT Unicode-3.0 ZLIB"
SLOT="0"
IUSE="+catalyst"
# They want root, Debian's packages and QEMU.
RESTRICT="test"

# Tools of the nodes. PXELINUX's and iPXE's files are wanted by netboot.loaders alone, which the catalyst graphs do without.
RDEPEND="
	sys-apps/bubblewrap
	sys-apps/util-linux
	dev-libs/libisoburn
	sys-boot/grub:2[grub_platforms_efi-64,grub_platforms_pc]
	sys-fs/dosfstools
	sys-fs/mtools
	sys-fs/xfsprogs
	catalyst? ( dev-util/catalyst )
"

src_unpack() {
	git-r3_src_unpack
	cargo_live_src_unpack
}

src_install() {
	dobin "$(cargo_target_dir)/stagegraph"
	insinto /usr/share/stagegraph/specs
	doins specs/*.toml
	"$(cargo_target_dir)/stagegraph" man "${T}" || die
	doman "${T}"/*.1
	"$(cargo_target_dir)/stagegraph" completions bash > "${T}/stagegraph" || die
	dobashcomp "${T}/stagegraph"
	dodoc README.md ARCHITECTURE.md CHANGELOG.md docs/*.md packaging/gentoo/catalyst.conf
}

pkg_postinst() {
	if use catalyst; then
		elog "To let catalyst publish netboot sets, once for each of its Python versions:"
		elog "    stagegraph catalyst install"
		elog "and say \"target: livecd-stagegraph\" in a spec."
	fi
}
