"""Say why a JPEG can't be read: what its header announces, and the decoder has no means for."""

START, END = 0xC0, 0xCF  # of the markers that announce the picture
NOT_OF_A_PICTURE = (0xC4, 0xC8, 0xCC)  # between them
HIERARCHICAL = (0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)  # or lossless in arithmetic coding
JPEG_LS = 0xF7
ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a content


def jpeg_refusal(content: bytes) -> str:
    """What in a JPEG's header can't be read; empty if nothing, or if this is no JPEG."""
    at = 2 if content.startswith(b"\xff\xd8") else len(content)
    while at + 9 < len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == JPEG_LS:
            return "the compression JPEG-LS"
        if START <= marker <= END and marker not in NOT_OF_A_PICTURE:
            bits, channels = content[at + 4], content[at + 9]
            if bits != 8:
                return f"{bits} bits a sample"
            if channels not in (1, 3, 4):
                return f"{channels} channels"
            return "a rare kind of compression" if marker in HIERARCHICAL else ""
        if marker in (*ALONE, 0xFF):
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return ""
