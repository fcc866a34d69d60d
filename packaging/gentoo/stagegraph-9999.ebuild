# Distributed under the terms of the GNU General Public License v2

EAPI=8

inherit cargo git-r3 shell-completion

DESCRIPTION="Content-addressed builds of live media: an ISO and a netboot set of the same files"
HOMEPAGE="https://wiki.gentoo.org/wiki/Catalyst"
# Where you have the source: set it in the environment, or in /etc/portage/env.
: "${EGIT_REPO_URI:?the address of a clone of stagegraph}"

LICENSE="GPL-2+"
# Crates
LICENSE+=" Apache-2.0 BSD BSD-2 CC0-1.0 ISC MIT Unicode-3.0 ZLIB"
SLOT="0"
IUSE="+catalyst"

# Tools of the nodes; the last three are for the ISO and its boot images.
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
