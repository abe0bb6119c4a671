# Permissions, owners and times.
as_user() { setpriv --reuid 1000 --regid 1000 --clear-groups -- "$@"; }
umask 022
echo secret > a
same "$(stat -c %a a)" 644
chmod 600 a
chmod 755 .
fails as_user cat a
chmod o+r a
same "$(as_user cat a)" secret
fails as_user sh -c 'echo no >> a'
chown 1000:100 a
same "$(stat -c %u:%g a)" 1000:100
as_user sh -c 'echo yes >> a'
chmod 6751 a
same "$(stat -c %a a)" 6751
# A change of owner takes the setuid and setgid bits away.
chown 1000:1000 a
same "$(stat -c %a a)" 751
mkdir sticky
chmod 1777 sticky
echo root > sticky/mine
as_user touch sticky/theirs
fails as_user rm -f sticky/mine
same "$(stat -c %U:%G sticky/theirs)" user:user
touch -d '2001-02-03 04:05:06 UTC' a
touch -h -d '2002-02-03 04:05:06 UTC' sticky/mine
ln -s a link
chown -h 1000:1000 link
drop_caches
same "$(stat -c %a:%u:%g a)" 751:1000:1000
same "$(stat -c %Y a)" 981173106
same "$(stat -c %Y sticky/mine)" 1012709106
same "$(stat -c %u link)" 1000
same "$(stat -c %a sticky)" 1777
# An unprivileged writer is stopped by the directory too.
chmod 700 .
fails as_user touch /root/x
