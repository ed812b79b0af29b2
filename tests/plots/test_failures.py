"""The page of wrong results: its text is escaped, and it is self-contained."""

from PIL import Image

from captioner.plots.failures import FailedQuery, Failure, failures_page


def test_the_page_names_queries_images_captions_and_words():
    image = Image.new("RGB", (400, 200), "red")
    failures = [
        Failure(2, "a<b.jpg", 0.1234, image, 'a "red" dog', [("beach", 3.21)]),
        Failure(5, "gone.jpg", -0.5, None, "", []),
    ]
    page = failures_page("Wrong <results>", "a note", [FailedQuery("dog - <cat>", 3, 5, failures)])
    for part in (
        "<title>Wrong &lt;results&gt;</title>",
        "dog - &lt;cat&gt; <span>3 of 5 relevant</span>",
        "2. a&lt;b.jpg, 0.123",
        "a &quot;red&quot; dog",
        "<span>beach 3.2</span>",
        "5. gone.jpg, -0.500",
        "the image cannot be read",
        "data:image/jpeg;base64,",
    ):
        assert part in page
    assert "<script" not in page
    assert "http" not in page
