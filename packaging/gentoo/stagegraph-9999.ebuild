# Distributed under the terms of the GNU General Public License v2

EAPI=8

PYTHON_COMPAT=( python3_{11..14} )
RUST_MIN_VER="1.95.0"

inherit cargo git-r3 python-r1 shell-completion systemd toolchain-funcs

DESCRIPTION="Builds live media: an ISO and a netboot set of the same files, kept by content"
# It has no page of its own yet; this is what Gentoo writes for that.
HOMEPAGE="https://wiki.gentoo.org/wiki/No_homepage"
# Where the source is cloned from; this is a place on the machine itself.
EGIT_REPO_URI="${STAGEGRAPH_REPO_URI:-file:///var/lib/stagegraph.git}"

LICENSE="GPL-2+"
# Crates, and the C libraries in them
LICENSE+="
	0BSD Apache-2.0 BSD BSD-2 Boost-1.0 BZIP2 CC0-1.0 CDLA-Permissive-2.0 ISC LGPL-2+ MIT
	Unicode-3.0 ZLIB
"
SLOT="0"
IUSE="+catalyst"
REQUIRED_USE="catalyst? ( ${PYTHON_REQUIRED_USE} )"
# They want root, Debian's packages and QEMU.
RESTRICT="test"

# zstd, xz and libdeflate stay those of the crates, on purpose: they decide what bytes a squashfs has, so their
# versions in Cargo.lock are part of every key of the store. Another version would be found under the same key.
DEPEND=">=dev-db/sqlite-3.45.3:3"
# Below are the tools of the nodes. PXELINUX's and iPXE's files are wanted by netboot.loaders alone, which the
# catalyst graphs do without.
RDEPEND="
	${DEPEND}
	dev-libs/libisoburn
	sys-apps/bubblewrap
	sys-apps/util-linux
	sys-boot/grub:2[grub_platforms_efi-64,grub_platforms_pc]
	sys-fs/dosfstools
	sys-fs/mtools
	sys-fs/xfsprogs
	catalyst? (
		${PYTHON_DEPS}
		dev-python/tomli[${PYTHON_USEDEP}]
		dev-util/catalyst[${PYTHON_USEDEP}]
	)
"
BDEPEND="
	virtual/pkgconfig
	catalyst? ( ${PYTHON_DEPS} )
"

src_unpack() {
	git-r3_src_unpack
	cargo_live_src_unpack
}

src_configure() {
	# The crate takes the system's library by this, although its feature "bundled" is on.
	export LIBSQLITE3_SYS_USE_PKG_CONFIG=1
	cargo_src_configure
}

src_install() {
	local program="$(cargo_target_dir)/stagegraph"
	dobin "${program}"

	insinto /usr/share/stagegraph/specs
	doins specs/*.toml

	newinitd packaging/openrc/stagegraph-serve.initd stagegraph-serve
	newconfd packaging/openrc/stagegraph-serve.confd stagegraph-serve
	systemd_dounit packaging/systemd/stagegraph-serve.{service,socket}

	if tc-is-cross-compiler; then
		ewarn "The program makes its manual pages and completions itself, and ${CHOST} programs do not run here:"
		ewarn "they are left out. \"stagegraph man DIR\" and \"stagegraph completions bash\" make them later."
	else
		mkdir "${T}"/man || die
		"${program}" man "${T}"/man || die
		doman "${T}"/man/*.1
		local shell
		for shell in bash fish zsh; do
			"${program}" completions ${shell} > "${T}"/stagegraph.${shell} || die
		done
		newbashcomp "${T}"/stagegraph.bash stagegraph
		newfishcomp "${T}"/stagegraph.fish stagegraph.fish
		newzshcomp "${T}"/stagegraph.zsh _stagegraph
	fi

	if use catalyst; then
		python_moduleinto catalyst/targets
		python_foreach_impl python_domodule packaging/catalyst/livecd_stagegraph.py
		dodoc packaging/gentoo/catalyst.conf
		docompress -x /usr/share/doc/${PF}/catalyst.conf
	fi
	dodoc README.md ARCHITECTURE.md CHANGELOG.md docs/*.md
}

pkg_postinst() {
	if use catalyst; then
		elog "To let catalyst publish a netboot set beside the ISO, say \"target: livecd-stagegraph\" in a spec."
		elog "${EPREFIX}/usr/share/doc/${PF} has a catalyst.conf to begin with; catalyst.md beside it says the rest."
	fi
}
