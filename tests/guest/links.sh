# Hard and symbolic links.
echo one > a
ln a b
mkdir d
ln a d/c
same "$(stat -c %h a)" 3
same "$(stat -c %i a)" "$(stat -c %i d/c)"
echo two >> b
same "$(cat d/c)" "$(printf 'one\ntwo')"
drop_caches
same "$(stat -c %h b)" 3
same "$(cat a)" "$(printf 'one\ntwo')"
rm a
same "$(stat -c %h b)" 2
same "$(cat d/c)" "$(printf 'one\ntwo')"
fails ln d hard-directory

# A file of the image itself can be linked too.
cp /etc/hostname name
ln /etc/hostname shared
same "$(cat shared)" "$(cat name)"
rm shared
same "$(cat /etc/hostname)" "$(cat name)"

ln -s b soft
ln -s nowhere dangling
ln -s loop loop
ln -s d/../d/c far
drop_caches
same "$(readlink soft)" b
same "$(cat soft)" "$(printf 'one\ntwo')"
same "$(cat far)" "$(printf 'one\ntwo')"
same "$(stat -c %F dangling)" 'symbolic link'
fails cat dangling
fails cat loop
echo made > dangling
same "$(cat nowhere)" made
target=$(printf '%01000d' 5)
ln -s "$target" long
drop_caches
same "$(readlink long)" "$target"
rm soft
same "$(stat -c %h b)" 2
