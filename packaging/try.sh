#!/bin/sh
# try.sh FOLDER PROGRAM : says how to try a published folder in QEMU.
set -eu
iso=$(ls "$1"/*.iso)
cat <<TEXT

Try the ISO (a graphical window; the last menu entry is for a serial console):
  qemu-system-x86_64 -m 1024 -cdrom $iso
Try the netboot set, served from this machine:
  $2 serve $1 --on lo --http 8000 &
  qemu-system-x86_64 -m 1024 -nic user,model=virtio,bootfile=http://10.0.2.2:8000/boot.ipxe
Add -accel kvm where the machine has it. To boot the machines of your network from it, as root: $2 serve $1 --room
TEXT
