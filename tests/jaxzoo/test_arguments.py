"""What the shell leaves to us."""

from jaxzoo.arguments import home_expanded


def test_a_tilde_is_the_home_folder_where_the_shell_leaves_it_alone(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    given = ["--out=~/run", "~/net.pth", "folder:~/photos", "--data=list:~/a b.csv", "--weights=~/run#ema", "~"]
    expected = ["/home/ada/run", "/home/ada/net.pth", "folder:/home/ada/photos", "/home/ada/a b.csv"]
    expected = [f"--out={expected[0]}", *expected[1:3], f"--data=list:{expected[3]}", "--weights=/home/ada/run#ema"]
    assert home_expanded(given) == [*expected, "/home/ada"]
    others = ["--out", "a~/b", "--note=x~", "-x", "voc:a/~", "~nobody-of-this-name/x"]
    assert home_expanded(others) == others
