# Regular files, directories and names.
printf 'first\n' > a
printf 'second\n' >> a
same "$(cat a)" "$(printf 'first\nsecond')"
: > empty
same "$(stat -c %s empty)" 0

# A hole reads as zeros, a shorter file has lost its tail for good.
printf x | dd of=sparse bs=1 seek=1000000 conv=notrunc status=none
same "$(stat -c %s sparse)" 1000001
same "$(head -c 1000000 sparse | tr -d '\0' | wc -c)" 0
truncate -s 3 a
truncate -s 6 a
same "$(od -An -tx1 a)" " 66 69 72 00 00 00"
# Overwriting in the middle keeps both sides.
seq 1 10000 > numbers
printf 'XXXX' | dd of=numbers bs=1 seek=20000 conv=notrunc status=none
same "$(wc -c < numbers)" "$(seq 1 10000 | wc -c)"
same "$(seq 1 10000 | cmp -l numbers - | wc -l)" 4

# A file that is removed while open can still be read and written.
exec 5<> a
rm a
printf 'gone' >&5
fails [ -e a ]
exec 5>&-

# Names: long, odd, many; . and .. ; a directory that is not empty stays.
long=$(printf '%0255d' 7)
: > "$long"
: > 'two words	tab "quotes" \back'
: > 'naïve-日本語'
same "$(ls -1 | wc -l)" 6
fails touch "${long}8"
mkdir -p deep/er/est
fails rmdir deep
rm -r deep
mkdir many
(cd many && seq -f 'file-%g' 1 1000 | xargs touch)
drop_caches
same "$(ls many | wc -l)" 1000
same "$(ls many | sort -t- -k2n | tail -n 1)" file-1000
same "$(stat -c %s "$long")" 0
same "$(seq 1 10000 | cmp -l numbers - | wc -l)" 4
rm -r many
