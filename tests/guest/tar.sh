# Archives of real trees, packed and unpacked.
tar -C / -c -f - etc usr/share usr/bin/bash | xz -0 > tree.tar.xz
mkdir out
xz -d < tree.tar.xz | tar -x -C out
drop_caches
diff -r --no-dereference /etc out/etc
diff -r --no-dereference /usr/share out/usr/share
cmp /usr/bin/bash out/usr/bin/bash
(cd out && find . -printf '%M %u:%g %T@ %l %p\n' | sed 's/\.[0-9]* / /' | sort) > unpacked
(cd / && find ./etc ./usr/share ./usr/bin/bash -printf '%M %u:%g %T@ %l %p\n' | sed 's/\.[0-9]* / /' | sort) > original
grep -v -e ' \.$' -e ' \./usr$' -e ' \./usr/bin$' unpacked | diff original -
gzip -9 < out/usr/bin/bash | gunzip | cmp - /usr/bin/bash
bzip2 < out/etc/services | bunzip2 | cmp - /etc/services
