#!/bin/sh
# Runs the products of AMX, AVX512-BF16 and VNNI (runtime/native/cpu) in the Bochs emulator, on Debian's
# kernel, which grants the use of AMX as on a real machine:   tests/campaigns/emulator.sh [WORK] [MODEL...]
#
# WORK, by default a new folder, keeps the downloads and the emulator for the next run. A MODEL is one
# of Bochs's processors. The default ones have all of these instructions; VNNI alone; AVX-VNNI without
# AVX-512; and none of them. Needs Debian's g++, make, cmake, git and apt-get, and a network for
# the first run: about ten minutes. Nothing is installed.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work=${1:-$(mktemp -d)}
[ $# -gt 0 ] && shift
models=${*:-sapphire_rapids corei7_icelake_u arrow_lake corei7_skylake_x}
bochs_commit=783b58fd6d9bae598a07c59719122322fa0edce6
packages="isolinux syslinux-common xorriso libisoburn1 libburn4 libisofs6 libjte2 busybox-static"
mkdir -p "$work"
cd "$work"

if [ ! -x bochs/bochs/bochs ]; then
  rm -rf bochs
  git clone --quiet --filter=blob:none https://github.com/bochs-emu/Bochs bochs
  git -C bochs checkout --quiet "$bochs_commit"
  python3 "$root/tests/campaigns/emulator_xfd.py" bochs/bochs
  (cd bochs/bochs && ./configure --enable-x86-64 --enable-cpu-level=6 --enable-avx --enable-evex \
    --enable-amx --enable-all-optimizations --disable-usb --disable-plugins --disable-docbook \
    --disable-voodoo --with-nogui CXXFLAGS=-O2 CFLAGS=-O2 && make) >bochs.log 2>&1
fi
if [ ! -d system ]; then
  mkdir -p packages
  kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-6.*\)/\1/p')
  (cd packages && apt-get -qq download $packages "$kernel" 2>/dev/null)
  for package in packages/*.deb; do dpkg -x "$package" system; done
fi

# The driver and a shell, in a file system in memory.
cmake -S "$root" -B build -DBSMAMBA2_DRIVER=ON -DCMAKE_EXE_LINKER_FLAGS=-static >build.log
cmake --build build --target product_driver >build.log 2>&1
rm -rf files cd
mkdir -p files/bin files/proc files/dev cd/isolinux
cp build/runtime/native/product_driver system/bin/busybox files/bin/
cat >files/init <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1
echo "BEGIN Linux $(/bin/busybox uname -r)"
/bin/product_driver 10
echo "with BSMAMBA2_ISA=avx2:"
BSMAMBA2_ISA=avx2 /bin/product_driver 3
echo END
/bin/busybox poweroff -f
INIT
chmod +x files/init
(cd files && find . | bin/busybox cpio -o -H newc) >cd/isolinux/initrd 2>/dev/null
cp system/boot/vmlinuz-* cd/isolinux/linux
cp system/usr/lib/ISOLINUX/isolinux.bin system/usr/lib/syslinux/modules/bios/ldlinux.c32 cd/isolinux/
# The features that are cleared are those with which this kernel does not start in this version of
# Bochs: short string copies (580) and, untested one by one, SERIALIZE, IBT, shadow stacks, PKU and
# WAITPKG. The products use none of them.
cat >cd/isolinux/isolinux.cfg <<'LOADER'
default linux
label linux
 kernel linux
 append initrd=initrd console=ttyS0,115200 nokaslr mitigations=off tsc=reliable lpj=100000 apparmor=0 lsm=yama no5lvl random.trust_cpu=on clearcpuid=580,590,596,519,515,517
LOADER
LD_LIBRARY_PATH=system/usr/lib/x86_64-linux-gnu system/usr/bin/xorriso -as mkisofs -quiet -o boot.iso \
  -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table cd

failed=0
for model in $models; do
  cat >bochsrc <<CONFIGURATION
config_interface: textconfig
display_library: nogui
memory: guest=512, host=512
romimage: file=$work/bochs/bochs/bios/BIOS-bochs-latest
vgaromimage: file=$work/bochs/bochs/bios/VGABIOS-lgpl/VGABIOS-lgpl-latest.bin
cpu: model=$model, count=1, ips=20000000, reset_on_triple_fault=0
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/$model.txt
log: $work/$model.log
panic: action=fatal
error: action=ignore
info: action=ignore
clock: sync=none
CONFIGURATION
  rm -f "$model.txt"
  echo c | timeout 1800 bochs/bochs/bochs -q -f bochsrc >/dev/null 2>&1 || true
  echo "$model:"
  tr -d '\r' <"$model.txt" | sed -n '/^BEGIN/,/^END/p' | sed 's/^BEGIN //; /^END$/d; s/^/  /'
  [ "$(grep -c '^passed' "$model.txt")" = 2 ] || failed=1
done
exit $failed
