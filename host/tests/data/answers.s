# The guest of `answers.state.zst`, at F000:0000. It leaves a letter in each of some chips, then answers each
# byte from COM1 with the byte, the count of them, and the letters as the chips still have them.
	.code16
	.intel_syntax noprefix
	mov	al, 0x11		# 8259A: ICW1 to ICW4, and the mask
	out	0x20, al
	mov	al, 8
	out	0x21, al
	mov	al, 4
	out	0x21, al
	mov	al, 1
	out	0x21, al
	mov	al, 'P'
	out	0x21, al
	mov	dx, 0x3fc		# COM1: ready to receive
	mov	al, 3
	out	dx, al
	mov	dx, 0x2ff		# COM2: the scratch register
	mov	al, 'U'
	out	dx, al
	mov	al, 0x50		# RTC: a byte of its memory
	out	0x70, al
	mov	al, 'R'
	out	0x71, al
	mov	dx, 0x3ce		# VGA: graphics controller, bit mask
	mov	ax, 0x5608
	out	dx, ax
	mov	dx, 0x1f2		# ATA: sector count
	mov	al, 'A'
	out	dx, al
	mov	al, 'M'
	mov	[0x500], al		# memory
	fninit				# x87
	fld1
	mov	eax, 0x58585858		# SSE
	mov	ecx, 0x200
	mov	cr4, ecx
	movd	xmm7, eax
	xor	bx, bx
next:	mov	dx, 0x3fd		# COM1: line status
	in	al, dx
	test	al, 1
	jz	next
	mov	dx, 0x3f8
	in	al, dx
	out	dx, al
	inc	bx
	mov	al, bl
	add	al, '0'
	out	dx, al
	in	al, 0x21
	out	dx, al
	mov	dx, 0x2ff
	in	al, dx
	call	say
	in	al, 0x71
	call	say
	mov	dx, 0x3cf
	in	al, dx
	call	say
	mov	dx, 0x1f2
	in	al, dx
	call	say
	mov	al, [0x500]
	call	say
	fist	word ptr [0x502]
	mov	al, [0x502]
	add	al, '0'
	call	say
	movd	eax, xmm7
	call	say
	jmp	next
say:	mov	dx, 0x3f8
	out	dx, al
	ret
